//! What an initrd reads from the kernel command line.

/// The parts of a kernel command line that the ephemeral system acts on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cmdline {
    /// URL of the root file system: `root=squash:URL`, `root=tar:URL`, `root=live:URL` or `fetch=URL`.
    pub root: Option<String>,
    /// `cloud-config-url`: where the preseed is.
    pub preseed: Option<String>,
    /// `BOOTIF`, as written.
    pub bootif: Option<String>,
    /// `log_host` and `log_port`.
    pub log: Option<(String, u16)>,
}

impl Cmdline {
    /// Reads a command line.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut out = Self::default();
        let (mut host, mut port) = (None, None);
        for word in text.split_whitespace() {
            let Some((key, value)) = word.split_once('=') else {
                continue;
            };
            match key {
                "root" => {
                    out.root = ["squash:", "tar:", "live:"]
                        .iter()
                        .find_map(|m| value.strip_prefix(m))
                        .map(str::to_owned)
                }
                "fetch" => out.root = Some(value.to_owned()),
                "cloud-config-url" => out.preseed = Some(value.to_owned()),
                "BOOTIF" => out.bootif = Some(value.to_owned()),
                "log_host" => host = Some(value.to_owned()),
                "log_port" => port = value.parse().ok(),
                _ => {}
            }
        }
        out.log = host.zip(port);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_that_matter_are_found() {
        let text = "nomodeset root=squash:http://r:5248/images/aa/squashfs ip=::::rex:BOOTIF:dhcp cc:{'datasource_list': ['MAAS']}end_cc \
            cloud-config-url=http://r:5248/MAAS/metadata/latest/enlist-preseed/?op=get_enlist_preseed log_host=r log_port=5247 BOOTIF=01-52-54";
        let c = Cmdline::parse(text);
        assert_eq!(c.root.as_deref(), Some("http://r:5248/images/aa/squashfs"));
        assert_eq!(
            c.preseed.as_deref(),
            Some("http://r:5248/MAAS/metadata/latest/enlist-preseed/?op=get_enlist_preseed")
        );
        assert_eq!(
            (c.bootif.as_deref(), c.log),
            (Some("01-52-54"), Some(("r".into(), 5247)))
        );
        assert_eq!(
            Cmdline::parse("boot=live fetch=http://x").root.as_deref(),
            Some("http://x")
        );
        assert_eq!(Cmdline::parse("root=/dev/sda1"), Cmdline::default());
    }
}
