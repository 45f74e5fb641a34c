use std::collections::BTreeMap;

use link::snapshot::{RootMethod, Settings};
use metal::boot::Facts;
use metal::status::{ALL, Status};

use super::*;

fn blob(digit: char, filename: &str) -> Blob {
    Blob {
        filename: filename.into(),
        sha256: digit.to_string().repeat(8),
        size: 1,
    }
}

fn an_image(osystem: &str, release: &str, subarch: &str) -> Image {
    Image {
        id: 1,
        osystem: osystem.into(),
        release: release.into(),
        arch: "amd64".into(),
        subarch: subarch.into(),
        label: "stable".into(),
        kernel: blob('a', "boot-kernel"),
        initrd: blob('b', "boot-initrd"),
        root: Some(blob('c', "squashfs")),
        root_method: RootMethod::Squash,
        kparams: String::new(),
    }
}

fn a_machine(status: Status) -> Machine {
    Machine {
        system_id: "4y3h7n".into(),
        hostname: "rex".into(),
        fqdn: "rex.maas".into(),
        facts: Facts {
            status,
            netboot: true,
            ephemeral_deploy: false,
            is_machine: true,
        },
        architecture: "amd64/generic".into(),
        hardware_uuid: None,
        macs: vec![metal::MacAddr([0x52, 0x54, 0, 1, 2, 3])],
        addresses: Vec::new(),
        kernel_opts: String::new(),
        deploy: None,
    }
}

fn a_snapshot(images: Vec<Image>) -> Snapshot {
    let images: BTreeMap<i64, Image> = (1..)
        .zip(images)
        .map(|(id, i)| (id, Image { id, ..i }))
        .collect();
    Snapshot {
        settings: Settings {
            commissioning_osystem: "ubuntu".into(),
            commissioning_distro_series: "noble".into(),
            ..Settings::default()
        },
        images,
        ..Snapshot::default()
    }
}

fn ask<'a>(
    snapshot: &'a Snapshot,
    machine: Option<&'a Machine>,
    loader: Loader,
    transport: Transport,
) -> Question<'a> {
    Question {
        snapshot,
        machine,
        arch: None,
        loader,
        transport,
        rack: "10.0.0.2:5248".parse().unwrap(),
    }
}

const CMDLINE: &str = "nomodeset \
    root=squash:http://10.0.0.2:5248/images/cccccccc/ubuntu/amd64/ga-24.04/noble/stable/squashfs \
    ip=::::rex:BOOTIF:dhcp ip6=off \
    cc:{'datasource_list': ['MAAS']}end_cc \
    cloud-config-url=http://10.0.0.2:5248/MAAS/metadata/latest/by-id/4y3h7n/?op=get_preseed \
    ro overlayroot=tmpfs overlayroot_cfgdisk=disabled log_host=10.0.0.2 log_port=5247";

#[test]
fn pxelinux_boots_the_ephemeral_system() {
    let (snapshot, machine) = (
        a_snapshot(vec![an_image("ubuntu", "noble", "ga-24.04")]),
        a_machine(Status::Commissioning),
    );
    let rendered = render(&ask(
        &snapshot,
        Some(&machine),
        Loader::Pxelinux,
        Transport::Http,
    ));
    assert_eq!(rendered.purpose, Purpose::Commissioning);
    assert_eq!(
        rendered.text,
        format!(
            "DEFAULT execute

LABEL execute
  SAY Booting ubuntu/noble for amd64 from the network
  KERNEL http://10.0.0.2:5248/images/aaaaaaaa/ubuntu/amd64/ga-24.04/noble/stable/boot-kernel
  INITRD http://10.0.0.2:5248/images/bbbbbbbb/ubuntu/amd64/ga-24.04/noble/stable/boot-initrd
  APPEND {CMDLINE}
  IPAPPEND 2
"
        )
    );
}

#[test]
fn grub_fetches_kernel_and_initrd_the_way_its_configuration_came() {
    let (snapshot, machine) = (
        a_snapshot(vec![an_image("ubuntu", "noble", "ga-24.04")]),
        a_machine(Status::Commissioning),
    );
    for (transport, device) in [
        (Transport::Tftp, "(tftp,10.0.0.2)"),
        (Transport::Http, "(http,10.0.0.2:5248)"),
    ] {
        let rendered = render(&ask(&snapshot, Some(&machine), Loader::Grub, transport));
        let escaped = CMDLINE.replace('{', "\\{").replace('}', "\\}");
        assert_eq!(
            rendered.text,
            format!(
                "set default=0
set timeout=0

menuentry 'ubuntu/noble for amd64' {{
    echo 'Booting ubuntu/noble for amd64 from the network'
    linux {device}/images/aaaaaaaa/ubuntu/amd64/ga-24.04/noble/stable/boot-kernel {escaped} BOOTIF=01-${{net_default_mac}}
    initrd {device}/images/bbbbbbbb/ubuntu/amd64/ga-24.04/noble/stable/boot-initrd
}}
"
            )
        );
    }
}

#[test]
fn ipxe_boots_the_ephemeral_system() {
    let (snapshot, machine) = (
        a_snapshot(vec![an_image("ubuntu", "noble", "ga-24.04")]),
        a_machine(Status::Commissioning),
    );
    let rendered = render(&ask(
        &snapshot,
        Some(&machine),
        Loader::Ipxe,
        Transport::Http,
    ));
    assert_eq!(
        rendered.text,
        format!(
            "#!ipxe
echo Booting ubuntu/noble for amd64 from the network
kernel http://10.0.0.2:5248/images/aaaaaaaa/ubuntu/amd64/ga-24.04/noble/stable/boot-kernel
initrd http://10.0.0.2:5248/images/bbbbbbbb/ubuntu/amd64/ga-24.04/noble/stable/boot-initrd
imgargs boot-kernel {CMDLINE} BOOTIF=01-${{mac:hexhyp}} initrd=boot-initrd
boot
"
        )
    );
}

#[test]
fn s390x_gets_its_bootif_spelled_out() {
    let (mut snapshot, mut machine) = (
        a_snapshot(vec![an_image("ubuntu", "noble", "ga-24.04")]),
        a_machine(Status::Commissioning),
    );
    snapshot
        .images
        .values_mut()
        .for_each(|i| i.arch = "s390x".into());
    machine.architecture = "s390x/generic".into();
    let rendered = render(&ask(
        &snapshot,
        Some(&machine),
        Loader::S390x,
        Transport::Tftp,
    ));
    assert!(
        rendered
            .text
            .ends_with(" log_port=5247 BOOTIF=01-52-54-00-01-02-03\n"),
        "{}",
        rendered.text
    );
}

#[test]
fn an_unknown_machine_enlists() {
    let snapshot = a_snapshot(vec![an_image("ubuntu", "noble", "ga-24.04")]);
    let rendered = render(&ask(&snapshot, None, Loader::Ipxe, Transport::Http));
    assert_eq!(rendered.purpose, Purpose::Enlist);
    assert!(
        rendered.text.contains(" ip=::::maas-enlist:BOOTIF:dhcp "),
        "{}",
        rendered.text
    );
    let url = " cloud-config-url=http://10.0.0.2:5248/MAAS/metadata/latest/enlist-preseed/?op=get_enlist_preseed ";
    assert!(rendered.text.contains(url), "{}", rendered.text);
}

#[test]
fn the_local_disk_is_booted_in_every_language() {
    let (snapshot, machine) = (a_snapshot(vec![]), a_machine(Status::Deployed));
    let text = |loader| {
        let rendered = render(&ask(&snapshot, Some(&machine), loader, Transport::Http));
        assert_eq!((rendered.purpose, rendered.missing), (Purpose::Local, None));
        rendered.text
    };
    assert_eq!(
        text(Loader::Pxelinux),
        "DEFAULT local\n\nLABEL local\n  SAY Booting the local disk\n  KERNEL chain.c32\n  APPEND hd0\n"
    );
    assert_eq!(text(Loader::S390x), "");
    let grub = text(Loader::Grub);
    let places: Vec<&str> = grub
        .lines()
        .filter_map(|l| l.trim().strip_prefix("chainloader "))
        .collect();
    assert_eq!(
        &places[..6],
        [
            "/efi/boot/bootx64.efi",
            "/efi/debian/shimx64.efi",
            "/efi/ubuntu/shimx64.efi",
            "/efi/ubuntu/grubx64.efi",
            "/efi/Microsoft/Boot/bootmgfw.efi",
            "/efi/centos/shimx64.efi",
        ]
    );
    assert!(grub.ends_with("    fi\n    exit 1\n}\n"));
    let secure = grub
        .find("shim_lock")
        .expect("asks whether Secure Boot is on");
    assert!(grub.find("bootmgfw").unwrap() < secure && secure < grub.find("centos").unwrap());
    let ipxe = text(Loader::Ipxe);
    for drive in ["0x80", "0x81", "0x82", "0x83"] {
        assert!(ipxe.contains(&format!("sanboot --no-describe --drive {drive} ||\n")));
    }
}

#[test]
fn a_missing_image_is_named_on_the_console() {
    let (snapshot, machine) = (a_snapshot(vec![]), a_machine(Status::Commissioning));
    for loader in [Loader::Pxelinux, Loader::Grub, Loader::Ipxe, Loader::S390x] {
        let rendered = render(&ask(&snapshot, Some(&machine), loader, Transport::Http));
        assert_eq!(
            rendered.missing.as_deref(),
            Some("no ubuntu/noble image with a kernel for amd64")
        );
        assert!(
            rendered
                .text
                .contains("no ubuntu/noble image with a kernel for amd64"),
            "{}",
            rendered.text
        );
    }
}

#[test]
fn every_status_gets_an_answer_in_every_language() {
    let snapshot = a_snapshot(vec![an_image("ubuntu", "noble", "ga-24.04")]);
    for status in ALL {
        let machine = a_machine(status);
        for loader in [Loader::Pxelinux, Loader::Grub, Loader::Ipxe, Loader::S390x] {
            let rendered = render(&ask(&snapshot, Some(&machine), loader, Transport::Http));
            assert_eq!(rendered.purpose, decide(Some(&machine.facts)));
            assert_eq!(
                rendered.text.is_empty(),
                loader == Loader::S390x && rendered.purpose == Purpose::Local
            );
        }
    }
}

#[test]
fn the_image_to_install_boots_itself_when_it_can() {
    let debian = an_image("debian", "bookworm", "generic");
    let mut tarball_only = an_image("centos", "centos8", "generic");
    tarball_only.root = None;
    let snapshot = a_snapshot(vec![
        an_image("ubuntu", "noble", "ga-24.04"),
        debian,
        tarball_only,
    ]);
    let chosen = |osystem: &str, release: &str| {
        let machine = Machine {
            deploy: Some((osystem.into(), release.into())),
            ..a_machine(Status::Deploying)
        };
        image::choose(&snapshot, Some(&machine), Purpose::Xinstall, "amd64")
            .map(|i| i.osystem.clone())
    };
    assert_eq!(chosen("debian", "bookworm").unwrap(), "debian");
    assert_eq!(chosen("centos", "centos8").unwrap(), "ubuntu");
    assert_eq!(chosen("custom", "mine").unwrap(), "ubuntu");
    let machine = Machine {
        deploy: Some(("debian".into(), "bookworm".into())),
        ..a_machine(Status::Commissioning)
    };
    assert_eq!(
        image::choose(&snapshot, Some(&machine), Purpose::Commissioning, "amd64")
            .unwrap()
            .osystem,
        "ubuntu"
    );
}

#[test]
fn the_kernel_is_the_machines_own_else_the_releases_first() {
    let kernels = [
        "hwe-24.04",
        "ga-24.04-lowlatency",
        "hwe-24.04-edge",
        "ga-24.04",
    ];
    let snapshot = a_snapshot(kernels.map(|k| an_image("ubuntu", "noble", k)).to_vec());
    let chosen = |architecture: &str| {
        let machine = Machine {
            architecture: architecture.into(),
            ..a_machine(Status::Commissioning)
        };
        image::choose(&snapshot, Some(&machine), Purpose::Commissioning, "amd64")
            .unwrap()
            .subarch
            .clone()
    };
    assert_eq!(chosen("amd64/generic"), "ga-24.04");
    assert_eq!(chosen("amd64/hwe-24.04-edge"), "hwe-24.04-edge");
    assert_eq!(
        image::choose(&snapshot, None, Purpose::Enlist, "arm64")
            .unwrap_err()
            .arch,
        "arm64"
    );
}

#[test]
fn user_options_replace_those_of_the_image() {
    let mut image = an_image("ubuntu", "noble", "ga-24.04");
    image.kparams = "console=ttyS0 quiet".into();
    let mut snapshot = a_snapshot(vec![image]);
    snapshot.settings.kernel_opts = "splash".into();
    let mut machine = a_machine(Status::Commissioning);
    machine.kernel_opts = "console=ttyS1,115200 a=b\nAPPEND evil".into();
    let rendered = render(&ask(
        &snapshot,
        Some(&machine),
        Loader::Pxelinux,
        Transport::Http,
    ));
    let append = rendered
        .text
        .lines()
        .find(|l| l.contains("APPEND"))
        .unwrap();
    assert!(
        append.ends_with(" log_port=5247 --- quiet splash console=ttyS1,115200 a=b APPEND evil"),
        "{append}"
    );
}

#[test]
fn the_initrd_is_told_its_root_in_its_own_words() {
    let line = |change: &dyn Fn(&mut Image), rack: &str| {
        let mut image = an_image("debian", "bookworm", "generic");
        change(&mut image);
        let mut snapshot = a_snapshot(vec![image.clone()]);
        snapshot.settings.remote_syslog = Some("logs.example.com".into());
        let machine = a_machine(Status::Commissioning);
        let q = Question {
            rack: rack.parse().unwrap(),
            ..ask(&snapshot, Some(&machine), Loader::Ipxe, Transport::Http)
        };
        cmdline::render(&q, &image)
    };
    let url = "http://10.0.0.2:5248/images/cccccccc/debian/amd64/generic/bookworm/stable/squashfs";
    let v4 = "10.0.0.2:5248";
    assert!(
        line(&|i| i.root_method = RootMethod::LiveBoot, v4).starts_with(&format!(
            "nomodeset boot=live fetch={url} ip=dhcp ip6=off cc:"
        ))
    );
    assert!(
        line(&|i| i.root_method = RootMethod::Dracut, v4)
            .starts_with(&format!("nomodeset root=live:{url} ip=dhcp ip6=off cc:"))
    );
    let whole = line(&|i| (i.root_method, i.root) = (RootMethod::None, None), v4);
    assert!(
        whole.starts_with("nomodeset ip=::::rex:BOOTIF:dhcp ip6=off cc:")
            && !whole.contains("overlayroot"),
        "{whole}"
    );
    let v6 = line(&|_| {}, "[fd00::2]:5248");
    assert!(
        v6.starts_with("nomodeset root=squash:http://[fd00::2]:5248/images/cccccccc/"),
        "{v6}"
    );
    assert!(
        v6.contains(" ip=off ip6=dhcp cc:")
            && v6.contains(" log_host=logs.example.com log_port=514"),
        "{v6}"
    );
    assert!(
        line(
            &|i| (i.osystem, i.release) = ("ubuntu".into(), "focal".into()),
            v4
        )
        .contains(" overlayroot_cfgdisk=disabled apparmor=0 log_host=")
    );
}

#[test]
fn the_first_file_leads_to_the_machines_own_and_then_to_the_default() {
    let grub = text::chain(Loader::Grub);
    assert!(
        grub.find("grub.cfg-${net_default_mac}").unwrap()
            < grub.find("grub.cfg-default-${grub_cpu}").unwrap()
    );
    let ipxe = text::chain(Loader::Ipxe);
    assert!(
        ipxe.starts_with("#!ipxe\n")
            && ipxe.find("ipxe.cfg-${mac:hexhyp} ||").unwrap()
                < ipxe.find("ipxe.cfg-default-").unwrap()
    );
}
