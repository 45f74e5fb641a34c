//! The user-data of the ephemeral system: a script that fetches the agent and runs it.

use super::Agents;

/// Where cloud-init saves the preseed.
pub const SAVED_PRESEED: &str = "/etc/cloud/cloud.cfg.d/91_kernel_cmdline_url.cfg";

/// The script for a machine that speaks to us at `base` (`http://host:port`).
#[must_use]
pub fn run_agent(base: &str, agents: &Agents) -> String {
    let mut arms = String::new();
    for (arch, agent) in agents.iter() {
        let machine = match arch {
            "amd64" => "x86_64 | amd64",
            "arm64" => "aarch64 | arm64",
            "armhf" => "armv7l | armv6l",
            "ppc64el" => "ppc64le",
            other => other,
        };
        let fits = machine
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_ |".contains(&b));
        if fits {
            arms.push_str(&format!("{machine}) SHA256={} ;;\n", agent.sha256));
        }
    }
    SCRIPT
        .replace("@RACK@", &shell(base))
        .replace("@CONFIG@", SAVED_PRESEED)
        .replace("@AGENTS@", &arms)
}

/// The script for a machine that has nothing to do.
pub const POWER_OFF: &str = "#!/bin/sh\n# Steelyard: this machine has nothing to do here.\nsystemctl poweroff || poweroff || shutdown -P now\n";

/// A text as one word of the shell.
fn shell(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Each of curl, wget and python3 is enough. A machine that cannot run the agent says so in a signal, when
/// it has a key, and on its console.
const SCRIPT: &str = r#"#!/bin/sh
# Steelyard: fetches the agent for this machine and runs it.
RACK=@RACK@
CONFIG=@CONFIG@
DIR=/var/lib/steelyard-agent
AGENT=$DIR/steelyard-agent
TRIES=10

say() { echo "steelyard: $*"; echo "steelyard: $*" > /dev/console 2>/dev/null || true; }

# The first value of a key in the saved preseed, without quotes.
value() { sed -n "s/^ *$1: *\"\{0,1\}\([^\"]*\)\"\{0,1\} *\$/\1/p" "$CONFIG" 2>/dev/null | head -n 1; }

# fetch URL FILE
fetch() {
    if command -v curl > /dev/null 2>&1; then
        curl -fsS --noproxy '*' --connect-timeout 10 -o "$2" "$1"
    elif command -v wget > /dev/null 2>&1; then
        wget -q --no-proxy -T 60 -t 1 -O "$2" "$1"
    elif command -v python3 > /dev/null 2>&1; then
        python3 -c 'import sys, shutil, urllib.request as u
o = u.build_opener(u.ProxyHandler({}))
shutil.copyfileobj(o.open(sys.argv[1], timeout=60), open(sys.argv[2], "wb"))' "$1" "$2"
    else
        say "there is neither curl nor wget nor python3"; return 9
    fi
}

# post URL BODY AUTHORIZATION
post() {
    if command -v curl > /dev/null 2>&1; then
        curl -fsS --noproxy '*' --connect-timeout 10 -o /dev/null -H "Authorization: $3" --data "$2" "$1"
    elif command -v wget > /dev/null 2>&1; then
        wget -q --no-proxy -T 60 -t 1 -O /dev/null --header "Authorization: $3" --post-data "$2" "$1"
    elif command -v python3 > /dev/null 2>&1; then
        python3 -c 'import sys, urllib.request as u
o = u.build_opener(u.ProxyHandler({}))
o.open(u.Request(sys.argv[1], data=sys.argv[2].encode(), headers={"Authorization": sys.argv[3]}), timeout=60)' "$1" "$2" "$3"
    else
        return 9
    fi
}

sum() {
    if command -v sha256sum > /dev/null 2>&1; then
        sha256sum "$1" | cut -d ' ' -f 1
    elif command -v python3 > /dev/null 2>&1; then
        python3 -c 'import sys, hashlib; print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' "$1"
    fi
}

# Tells the region that this machine cannot do its work, and ends.
fail() {
    say "$*"
    url=$(value metadata_url); secret=$(value token_secret)
    if [ -n "$url" ] && [ -n "$secret" ]; then
        auth="OAuth oauth_version=\"1.0\", oauth_signature_method=\"PLAINTEXT\", oauth_consumer_key=\"$(value consumer_key)\""
        auth="$auth, oauth_token=\"$(value token_key)\", oauth_signature=\"%26$secret\", oauth_timestamp=\"$(date +%s)\", oauth_nonce=\"$$-$(date +%s)\""
        text=$(printf '%s' "$*" | tr -c 'A-Za-z0-9.:_-' '+')
        n=0
        until post "${url%/}/2012-03-01/" "op=signal&status=FAILED&error=$text" "$auth"; do
            n=$((n + 1)); [ "$n" -lt "$TRIES" ] || { say "the failure could not be reported"; break; }
            sleep 5
        done
    fi
    exit 1
}

SHA256=
case "$(uname -m)" in
@AGENTS@esac
[ -n "$SHA256" ] || fail "No agent for $(uname -m) is built into this region; use a release build."

mkdir -p "$DIR" || fail "The directory $DIR cannot be made."
n=0
while :; do
    rm -f "$AGENT"
    if fetch "$RACK/images/$SHA256/steelyard-agent" "$AGENT"; then
        [ "$(sum "$AGENT")" = "$SHA256" ] && break
        why="The agent from $RACK was altered on its way: its SHA-256 is not $SHA256."
    else
        why="The agent could not be fetched from $RACK."
    fi
    n=$((n + 1))
    [ "$n" -lt "$TRIES" ] || fail "$why"
    sleep 3
done
chmod 0755 "$AGENT"
"$AGENT" version > /dev/null 2>&1 || fail "The agent does not run in this ephemeral system."
exec "$AGENT" run --config "$CONFIG" --rack "$RACK"
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::collections::BTreeMap;
    use std::io::{Read as _, Write as _};
    use std::process::Command;

    fn agents(arch: &str, body: &'static [u8]) -> Agents {
        Agents::new(&BTreeMap::from([(
            arch.to_owned(),
            Bytes::from_static(body),
        )]))
    }

    fn here() -> &'static str {
        if cfg!(target_arch = "aarch64") {
            "arm64"
        } else {
            "amd64"
        }
    }

    /// Answers so many requests with these bodies in turn; gives what was asked.
    fn server(bodies: Vec<Vec<u8>>) -> (String, std::thread::JoinHandle<Vec<String>>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            let mut asked = Vec::new();
            for body in bodies {
                let (mut s, _) = listener.accept().unwrap();
                let mut request = Vec::new();
                let mut buffer = [0u8; 4096];
                loop {
                    let n = s.read(&mut buffer).unwrap();
                    request.extend_from_slice(&buffer[..n]);
                    let text = String::from_utf8_lossy(&request).into_owned();
                    let Some((head, rest)) = text.split_once("\r\n\r\n") else {
                        continue;
                    };
                    let length = head.lines().find_map(|l| {
                        l.to_ascii_lowercase()
                            .strip_prefix("content-length:")
                            .map(|v| v.trim().parse::<usize>().unwrap())
                    });
                    if n == 0 || rest.len() >= length.unwrap_or(0) {
                        break;
                    }
                }
                write!(
                    s,
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                )
                .unwrap();
                s.write_all(&body).unwrap();
                asked.push(String::from_utf8(request).unwrap());
            }
            asked
        });
        (base, thread)
    }

    fn run(script: &str, dir: &std::path::Path) -> std::process::Output {
        let script = script
            .replace(
                "/var/lib/steelyard-agent",
                &dir.join("agent").display().to_string(),
            )
            .replace(SAVED_PRESEED, &dir.join("preseed").display().to_string());
        let file = dir.join("user-data");
        std::fs::write(
            &file,
            script
                .replace("/dev/console", "/dev/null")
                .replace("TRIES=10", "TRIES=1"),
        )
        .unwrap();
        Command::new("sh").arg(&file).output().unwrap()
    }

    const AGENT: &[u8] = b"#!/bin/sh\necho \"agent: $*\"\n";

    #[test]
    fn the_agent_is_fetched_checked_and_run() {
        let dir = tempfile::tempdir().unwrap();
        let (base, asked) = server(vec![AGENT.to_vec()]);
        let out = run(&run_agent(&base, &agents(here(), AGENT)), dir.path());
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(
            text.contains(&format!(
                "agent: run --config {}/preseed --rack {base}",
                dir.path().display()
            )),
            "{text} {out:?}"
        );
        assert!(asked.join().unwrap()[0].starts_with("GET /images/"));
    }

    #[test]
    fn an_altered_agent_is_not_run_and_the_region_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let (base, asked) = server(vec![b"#!/bin/sh\necho evil\n".to_vec(), b"OK".to_vec()]);
        let preseed = super::super::yaml::cloud_config(
            &serde_json::json!({"datasource": {"MAAS": {
            "consumer_key": "ck", "metadata_url": format!("{base}/MAAS/metadata/"), "token_key": "tk", "token_secret": "0123"}}}),
        );
        std::fs::write(dir.path().join("preseed"), preseed).unwrap();
        let out = run(&run_agent(&base, &agents(here(), AGENT)), dir.path());
        assert!(!out.status.success());
        assert!(!String::from_utf8_lossy(&out.stdout).contains("evil"));
        let asked = asked.join().unwrap();
        assert!(
            asked[1].starts_with("POST /MAAS/metadata/2012-03-01/ "),
            "{}",
            asked[1]
        );
        assert!(
            asked[1].contains("op=signal&status=FAILED&error=The+agent+from"),
            "{}",
            asked[1]
        );
        assert!(
            asked[1].contains("oauth_token=\"tk\"")
                && asked[1].contains("oauth_signature=\"%260123\""),
            "{}",
            asked[1]
        );
    }

    #[test]
    fn a_machine_without_an_agent_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let out = run(
            &run_agent("http://127.0.0.1:9", &agents("riscv64", AGENT)),
            dir.path(),
        );
        assert!(!out.status.success());
        assert!(
            String::from_utf8_lossy(&out.stdout).contains("No agent for"),
            "{out:?}"
        );
    }

    #[test]
    fn a_base_cannot_break_out_of_its_quotes() {
        let dir = tempfile::tempdir().unwrap();
        let out = run(
            &run_agent("http://x'; touch broken; echo '", &agents("riscv64", AGENT)),
            dir.path(),
        );
        assert!(!String::from_utf8_lossy(&out.stdout).contains("broken"));
    }
}
