//! Copying to an sshd on this machine. Where there is none, these tests say so and check nothing.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use vaquita_deploy::{Copied, DeployError, Remote, quote};

/// An sshd that lets in whoever has its folder's key.
struct Server {
    folder: tempfile::TempDir,
    process: Child,
    remote: Remote,
}

impl Server {
    fn start() -> Option<Self> {
        let sshd = Path::new("/usr/sbin/sshd");
        if !sshd.exists() {
            vaquita_skips::skipped("there is no /usr/sbin/sshd (Debian: openssh-server)");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        for key in ["host", "user"] {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-f", &at(key)]);
            assert!(keygen.status().unwrap().success());
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\n\
             StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\n",
            at("host"),
            at("user.pub")
        );
        fs::write(at("config"), config).unwrap();
        if fs::create_dir_all("/run/sshd").is_err() {
            vaquita_skips::skipped("/run/sshd, which sshd needs, cannot be made (root can)");
            return None;
        }
        let log = at("log");
        let process = Command::new(sshd)
            .args(["-D", "-f", &at("config"), "-E", &log])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let since = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let log = fs::read_to_string(&log).unwrap_or_default();
            assert!(since.elapsed() < Duration::from_secs(20), "sshd does not answer: {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
        let ssh = format!(
            "ssh -F none -p {port} -i {} -o BatchMode=yes -o StrictHostKeyChecking=no \
             -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR",
            at("user")
        );
        let remote = Remote::new(&ssh, "127.0.0.1").unwrap();
        Some(Self { folder, process, remote })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn copy(&self, from: &str, to: &str) -> Result<Copied, DeployError> {
        self.remote.copy(&self.path(from), self.path(to).to_str().unwrap(), &mut |_, _| {})
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_copy_goes_on_where_it_stopped_and_is_checked() {
    let Some(server) = Server::start() else { return };
    let bytes: Vec<u8> = (0..3_000_000u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect();
    let all = bytes.len() as u64;
    fs::write(server.path("model"), &bytes).unwrap();
    // A name that a shell would take apart.
    let there = "it's a \"model\" $HOME; exit";
    let is_whole = || {
        assert!(fs::read(server.path(there)).unwrap() == bytes);
        assert!(!server.path(&format!("{there}.partial")).exists());
    };

    let mut seen = Vec::new();
    let path = server.path(there);
    let copied =
        server.remote.copy(&server.path("model"), path.to_str().unwrap(), &mut |done, of| {
            seen.push((done, of))
        });
    assert_eq!(copied.unwrap(), Copied { kept_bytes: 0, sent_bytes: all });
    assert_eq!(seen.last(), Some(&(all, all)));
    is_whole();
    let again = server.copy("model", there).unwrap();
    assert_eq!(again, Copied { kept_bytes: all, sent_bytes: 0 });

    // As an earlier try was cut off; then as it was another file; then as more came than there is.
    for (partial, kept) in [(&bytes[..1_000_000], 1_000_000), (&[7; 1000], 0), (&[7; 4_000_000], 0)]
    {
        fs::remove_file(server.path(there)).unwrap();
        fs::write(server.path(&format!("{there}.partial")), partial).unwrap();
        let copied = server.copy("model", there).unwrap();
        assert_eq!(copied, Copied { kept_bytes: kept, sent_bytes: all - kept });
        is_whole();
    }

    // Something else under the name is replaced.
    fs::write(server.path(there), "old").unwrap();
    assert_eq!(server.copy("model", there).unwrap().sent_bytes, all);
    is_whole();
}

#[test]
fn programs_stay_programs_and_run_there() {
    use std::os::unix::fs::PermissionsExt;
    let Some(server) = Server::start() else { return };
    fs::write(server.path("program"), "#!/bin/sh\necho it runs\n").unwrap();
    fs::set_permissions(server.path("program"), fs::Permissions::from_mode(0o755)).unwrap();
    server.copy("program", "copy").unwrap();
    let path = server.path("copy");
    assert_eq!(server.remote.output(&quote(path.to_str().unwrap())).unwrap(), "it runs");
    server.remote.show("true").unwrap();
    assert_eq!(
        server.remote.target().unwrap().triple().split('-').next(),
        Some(std::env::consts::ARCH)
    );
}

#[test]
fn what_fails_there_is_told_here() {
    let Some(server) = Server::start() else { return };
    fs::write(server.path("model"), "bytes").unwrap();
    let error = server.copy("model", "no/such/folder/model").unwrap_err().to_string();
    assert!(error.starts_with("127.0.0.1: ") && error.contains("no/such/folder"), "{error}");
    assert!(matches!(server.copy("nothing", "x"), Err(DeployError::Local { .. })));
    let error = server.remote.output("echo broken >&2; exit 3").unwrap_err().to_string();
    assert_eq!(error, "127.0.0.1: broken");
}

#[test]
fn a_host_is_not_taken_for_an_option() {
    for host in ["-oProxyCommand=true", "", "-"] {
        assert!(matches!(Remote::new("ssh", host), Err(DeployError::Host { .. })), "{host}");
    }
    let missing = Remote::new("no-such-program", "host").unwrap().output("true").unwrap_err();
    assert!(matches!(missing, DeployError::Start { .. }), "{missing}");
}
