//! Network namespaces that go away with the test, and programs in them.

use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long any condition is waited for. Far longer than needed: the machine may be busy.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Waits until `condition` gives something.
#[track_caller]
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + LIMIT;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < until, "waited {LIMIT:?} for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs a program to its end; it must succeed.
#[track_caller]
pub fn run(words: &[&str]) -> String {
    let output = Command::new(words[0])
        .args(&words[1..])
        .output()
        .unwrap_or_else(|e| panic!("{words:?}: {e}"));
    assert!(
        output.status.success(),
        "{words:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A network namespace, removed when dropped.
pub struct Namespace {
    pub name: String,
}

impl Namespace {
    pub fn new(role: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("sy-{role}-{}-{number}", std::process::id());
        run(&["ip", "netns", "add", &name]);
        let namespace = Self { name };
        namespace.ip(&["link", "set", "lo", "up"]);
        namespace
    }

    /// Runs `ip` in the namespace.
    pub fn ip(&self, words: &[&str]) -> String {
        let mut all = vec!["ip", "-n", self.name.as_str()];
        all.extend(words);
        run(&all)
    }

    /// A command that will run in the namespace.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.name, program])
            .stdin(Stdio::null());
        command
    }

    /// Moves the calling thread into the namespace.
    pub fn enter(name: &str) {
        use std::os::fd::AsFd as _;
        let file = std::fs::File::open(format!("/run/netns/{name}")).unwrap();
        let kind = Some(rustix::thread::LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(file.as_fd(), kind).unwrap();
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        Command::new("ip")
            .args(["netns", "del", &self.name])
            .output()
            .ok();
    }
}

/// A program that ends with the test.
pub struct Program {
    child: Child,
}

impl Program {
    pub fn start(command: &mut Command) -> Self {
        Self {
            child: command
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap(),
        }
    }

    /// Takes over a program that was started otherwise.
    pub fn adopt(child: Child) -> Self {
        Self { child }
    }

    pub fn signal(&self, name: &str) {
        run(&["kill", "-s", name, &self.child.id().to_string()]);
    }

    /// Sends SIGTERM and waits for the end.
    pub fn stop(mut self) {
        self.signal("TERM");
        wait_for("a program to end", || self.child.try_wait().unwrap());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The rack's side and the machines' side, joined by a cable.
///
/// The rack has `r0` with 10.77.0.1/24 and fe80::1, the machines' side `c0` without an IPv4 address.
pub struct Lab {
    pub rack: Namespace,
    pub client: Namespace,
    pub dir: tempfile::TempDir,
}

pub const CLIENT_MAC: &str = "52:54:00:77:00:02";

impl Lab {
    pub fn new() -> Self {
        let lab = Self {
            rack: Namespace::new("rack"),
            client: Namespace::new("client"),
            dir: tempfile::tempdir().unwrap(),
        };
        let (rack, client) = (lab.rack.name.as_str(), lab.client.name.as_str());
        run(&[
            "ip", "link", "add", "r0", "netns", rack, "type", "veth", "peer", "name", "c0",
            "netns", client,
        ]);
        lab.rack
            .ip(&["link", "set", "r0", "address", "52:54:00:77:00:01"]);
        lab.client.ip(&["link", "set", "c0", "address", CLIENT_MAC]);
        lab.rack.ip(&["addr", "add", "10.77.0.1/24", "dev", "r0"]);
        lab.rack.ip(&["link", "set", "r0", "addrgenmode", "none"]);
        lab.rack.ip(&["link", "set", "r0", "up"]);
        lab.client.ip(&["link", "set", "c0", "up"]);
        lab.rack
            .ip(&["addr", "add", "fe80::1/64", "dev", "r0", "nodad"]);
        lab
    }

    /// A second rack on the same wire: `r1` with 10.77.0.4/24. The machines' ends become ports of a bridge,
    /// and `c0` is the bridge.
    pub fn second_rack(&self) -> Namespace {
        let second = Namespace::new("rack2");
        let (name, client) = (second.name.as_str(), self.client.name.as_str());
        run(&[
            "ip", "link", "add", "r1", "netns", name, "type", "veth", "peer", "name", "c2",
            "netns", client,
        ]);
        second.ip(&["addr", "add", "10.77.0.4/24", "dev", "r1"]);
        second.ip(&["link", "set", "r1", "up"]);
        self.client.ip(&["link", "set", "c0", "down"]);
        self.client.ip(&["link", "set", "c0", "name", "c1"]);
        self.client.ip(&[
            "link",
            "add",
            "c0",
            "address",
            "52:54:00:77:00:05",
            "type",
            "bridge",
            "forward_delay",
            "0",
            "mcast_snooping",
            "0",
        ]);
        for port in ["c1", "c2"] {
            self.client.ip(&["link", "set", port, "master", "c0"]);
            self.client.ip(&["link", "set", port, "up"]);
        }
        self.client.ip(&["link", "set", "c0", "up"]);
        second
    }

    /// The IPv4 addresses of the machines' side.
    pub fn client_addresses(&self) -> Vec<String> {
        let lines = self.client.ip(&["-4", "-o", "addr", "show", "dev", "c0"]);
        lines
            .lines()
            .filter_map(|line| {
                Some(
                    line.split_whitespace()
                        .nth(3)?
                        .split('/')
                        .next()?
                        .to_owned(),
                )
            })
            .collect()
    }

    /// Sends a datagram of this many bytes from the rack to port 68 of everybody.
    pub fn say_from_rack(&self, bytes: usize) {
        let namespace = self.rack.name.clone();
        let say = move || {
            Namespace::enter(&namespace);
            let socket = std::net::UdpSocket::bind("10.77.0.1:0").unwrap();
            socket.set_broadcast(true).unwrap();
            socket.send_to(&vec![0; bytes], "10.77.0.255:68").unwrap();
        };
        std::thread::spawn(say).join().unwrap();
    }

    /// A script for DHCP clients that sets the address of the interface and nothing else.
    pub fn client_script(&self) -> String {
        let path = self.dir.path().join("script");
        // dhclient says $reason and $new_ip_address, udhcpc $1 and $ip.
        let script = "#!/bin/sh\n\
            case \"${reason:-$1}\" in\n\
            BOUND|RENEW|REBIND|REBOOT|bound|renew) ip addr replace \"${new_ip_address:-$ip}/24\" dev \"$interface\" ;;\n\
            EXPIRE|FAIL|RELEASE|STOP|deconfig) ip -4 addr flush dev \"$interface\" ;;\n\
            esac\n\
            echo \"${reason:-$1} ${new_ip_address:-$ip}\" >> \"$(dirname \"$0\")/events\"\n";
        std::fs::write(&path, script).unwrap();
        run(&["chmod", "0755", path.to_str().unwrap()]);
        path.to_str().unwrap().to_owned()
    }

    /// What the script has been told so far.
    pub fn client_events(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.dir.path().join("events")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// udhcpc, asking until it has a lease; then it goes on in the foreground.
    pub fn udhcpc(&self) -> Program {
        let mut command = self.client.command("udhcpc");
        Program::start(command.args([
            "-f",
            "-R",
            "-t",
            "20",
            "-T",
            "1",
            "-A",
            "1",
            "-i",
            "c0",
            "-s",
            &self.client_script(),
        ]))
    }

    /// One udhcpc that sets its address or gives up after some seconds.
    pub fn udhcpc_once(&self) -> Output {
        self.udhcpc_with(&self.client_script())
    }

    /// One udhcpc that leaves the interface as it is. Says whether it got a lease.
    pub fn udhcpc_asks(&self) -> bool {
        self.udhcpc_with("/bin/true").status.success()
    }

    fn udhcpc_with(&self, script: &str) -> Output {
        let mut command = self.client.command("udhcpc");
        command
            .args([
                "-f", "-n", "-q", "-t", "3", "-T", "1", "-i", "c0", "-s", script,
            ])
            .output()
            .unwrap()
    }
}
