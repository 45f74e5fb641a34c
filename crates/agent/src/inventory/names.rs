//! Names of PCI and USB vendors and products: from udev's database, else from the `pci.ids`/`usb.ids` files.

use std::collections::BTreeMap;

use crate::sys::Sys;

/// Where the lists are, on Debian and elsewhere.
const DIRS: [&str; 3] = ["usr/share/misc", "usr/share/hwdata", "var/lib/usbutils"];

/// One list of ids: vendors with their products.
#[derive(Clone, Debug, Default)]
pub struct Ids(BTreeMap<u16, (String, BTreeMap<u16, String>)>);

impl Ids {
    /// Reads a list in the format of `pci.ids`: `vvvv  Name`, and below it `\tpppp  Name`.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut out = Self::default();
        let mut vendor = None;
        let entry = |line: &str| {
            let (id, name) = line.split_at_checked(4)?;
            Some((u16::from_str_radix(id, 16).ok()?, name.trim().to_owned()))
        };
        for line in text.lines() {
            if line.is_empty() || line.starts_with('#') || line.starts_with("\t\t") {
                continue;
            }
            if let Some(product) = line.strip_prefix('\t') {
                let names = vendor.and_then(|v| out.0.get_mut(&v));
                if let (Some((id, name)), Some((_, products))) = (entry(product), names) {
                    products.insert(id, name);
                }
            } else if line.starts_with("C ") {
                // Classes follow the vendors.
                break;
            } else {
                vendor = entry(line).map(|(id, name)| {
                    out.0.entry(id).or_insert((name, BTreeMap::new()));
                    id
                });
            }
        }
        out
    }

    /// Reads `file` from where distributions put it; empty when it is not there.
    #[must_use]
    pub fn read(sys: &Sys, file: &str) -> Self {
        DIRS.iter()
            .find_map(|d| sys.text(format!("{d}/{file}")))
            .map(|t| Self::parse(&t))
            .unwrap_or_default()
    }

    /// Name of a vendor.
    #[must_use]
    pub fn vendor(&self, vendor: u16) -> Option<&str> {
        Some(self.0.get(&vendor)?.0.as_str())
    }

    /// Name of a product.
    #[must_use]
    pub fn product(&self, vendor: u16, product: u16) -> Option<&str> {
        self.0.get(&vendor)?.1.get(&product).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vendors_and_products_are_found() {
        let ids = Ids::parse(
            "# comment\n1af4  Red Hat, Inc.\n\t1000  Virtio network device\n\t\t1af4 0001  sub\n8086  Intel Corporation\n\t10d3  82574L\nC 00  Unclassified\n\t00  odd\n",
        );
        assert_eq!(ids.vendor(0x1af4), Some("Red Hat, Inc."));
        assert_eq!(ids.product(0x8086, 0x10d3), Some("82574L"));
        assert_eq!(ids.product(0x8086, 0x1000), None);
    }
}
