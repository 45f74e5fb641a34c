//! The table of verdicts: every cause with its sentence and its remedy. `docs/verdicts.md` is this table.

/// A cause of a boot that stalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cause {
    /// Short name.
    pub code: &'static str,
    /// What is wrong.
    pub sentence: &'static str,
    /// What to do.
    pub remedy: &'static str,
}

macro_rules! causes {
    ($($name:ident $code:literal $sentence:literal $remedy:literal)*) => {
        $(
            #[doc = $sentence]
            pub const $name: Cause = Cause { code: $code, sentence: $sentence, remedy: $remedy };
        )*

        /// Every cause.
        pub const ALL: &[Cause] = &[$($name),*];
    };
}

causes! {
    POWER_AUTH "power-refused"
        "The BMC refused the user name or the password."
        "Correct power_user and power_pass of the machine, and check that the BMC lets this user use the network with the privilege that is set."
    POWER_UNREACHABLE "power-unreachable"
        "The BMC did not answer."
        "Check power_address, that the BMC has power and a cable, and that a rack reaches its network (UDP port 623 for IPMI)."
    POWER_SETTINGS "power-settings"
        "The power parameters of the machine make no sense."
        "Correct the power type and its parameters."
    POWER_ACTION "power-failed"
        "The BMC answered but did not carry the power command out."
        "Look at the BMC's own log and page; resetting the BMC often helps."
    NO_REQUEST "no-request"
        "Nothing was heard from the machine: it sent no request that a rack has seen."
        "Check that it has power, that network boot comes first in its firmware, that its cable is in the right VLAN, and that DHCP is on for that VLAN."
    NO_ADDRESS "no-address"
        "The machine asked for an address and was given none."
        "Add a dynamic range to the subnet, or make it larger, and check that the machine is in the VLAN that the subnet belongs to."
    OTHER_SERVER "other-dhcp-server"
        "The machine took its address from another DHCP server."
        "Switch the other DHCP server in this VLAN off, or let it point machines at this rack."
    OFFER_IGNORED "offer-not-taken"
        "The machine was offered an address and never asked for it."
        "Check that answers reach the machine: the native VLAN of its switch port, spanning tree that blocks the port for the first half minute, the relay agent."
    ADDRESS_REFUSED "address-refused"
        "The machine asked for an address that it may not have, and did not ask again."
        "Check for a static address or an old lease in its firmware, and for two subnets on one wire."
    NOT_FROM_NETWORK "not-booted-from-network"
        "The machine started a system from its disk instead of booting from the network."
        "Put network boot before the disk in its firmware, or let the BMC set the boot device (power_boot_type must fit the firmware)."
    NO_LOADER "no-loader"
        "The machine got an address and the name of a boot loader, but never fetched it."
        "Check that TFTP (UDP port 69) and HTTP (TCP port 5248) to the rack are not filtered, and that the firmware can boot from the network card that asked."
    LOADER_MISSING "loader-missing"
        "The machine asked for a boot loader that the rack does not have."
        "Import boot images, or install the boot loader packages (shim-signed, grub-efi, pxelinux, ipxe) on the rack."
    WRONG_LOADER "wrong-loader"
        "The machine was given a boot loader that does not fit its firmware."
        "Check disabled_boot_architectures of the subnet and the boot mode of the firmware (UEFI or legacy): the two must allow the same loader."
    NO_CONFIG "no-boot-config"
        "The boot loader was fetched but never asked for its configuration."
        "Check Secure Boot (an unsigned loader is not run), and look at the machine's console for a message of the loader."
    NO_IMAGE "no-image"
        "There is no image for this machine, so its boot configuration has nothing to boot."
        "Import the release that is named for the machine's architecture and wait until the rack has it."
    NO_KERNEL "no-kernel"
        "The boot loader has its configuration, but the kernel and the initial RAM disk were not fetched whole."
        "Look at the machine's console for a message of the loader, check that HTTP (TCP port 5248) to the rack works, and that the machine has memory enough."
    NO_ROOT "no-root"
        "The kernel was fetched, but the ephemeral root file system was not fetched whole."
        "Look at the machine's console: the kernel may not run on it, lack the driver of its network card, or have too little memory for the root file system."
    IMAGE_ALTERED "image-altered"
        "The image is altered: its bytes do not have the hash that its publisher gave."
        "Delete the image and import it again; if it happens again, check the disk and the memory of the rack and every proxy in between."
    FILE_UNREADABLE "file-unreadable"
        "The rack could not read a file that the machine asked for."
        "Look at the rack's log: its disk may be full or broken, or the region out of reach for content that the rack does not have yet."
    NO_METADATA "no-metadata"
        "The ephemeral system was fetched, but it never called the metadata service: it has no route to it, or it did not start."
        "Check that the running system has an address (DHCP of its own kernel and driver), and that nothing between it and TCP port 5248 of the rack filters."
    REFUSED "credentials-refused"
        "The metadata service refused the machine's credentials."
        "Boot the machine again, so that it gets fresh credentials; check its clock, and that it asks from the address that was leased to it."
    METADATA_FAILED "metadata-failed"
        "The metadata service could not answer the machine."
        "Check that the region runs and that the rack is connected to it."
    SCRIPT_FAILED "script-failed"
        "The machine reported that what it was doing failed."
        "Look at the output of the script that is named."
    INSTALL_FAILED "install-failed"
        "The installation failed."
        "Look at the installation log of the machine; the command, its exit status and the end of its output are in it."
    STOPPED_REPORTING "stopped-reporting"
        "The ephemeral system was running and stopped reporting."
        "Look at the machine's console: it may hang, have run out of memory, have lost its network, or have been switched off."
    NOT_BACK "installed-not-back"
        "The installation ended well, but the machine was not seen again after its reboot."
        "Look at the machine's console: the firmware may not find the boot loader on the disk, or wait for a key."
    LOCAL_SILENT "local-boot-silent"
        "The machine was told to boot its disk, and nothing was heard from it afterwards."
        "Look at the machine's console: the boot loader on the disk may be broken, or the installed system have no network."
    NOT_FINISHED "installed-not-finished"
        "The installed system was seen, but its cloud-init did not fetch its user-data."
        "Check that cloud-init is installed and enabled in the image, with the MAAS datasource, and that it reaches TCP port 5248 of the rack."
    UNKNOWN "unknown"
        "The boot stalled for a reason that its record does not show."
        "Look at the machine's console and at the timeline of this boot."
}
