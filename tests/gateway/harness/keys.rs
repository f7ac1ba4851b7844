//! Keys of all kinds: made by openssl when a test needs them, so that none lies in the repository.

use jsonwebtoken::EncodingKey;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory of a test's own, gone when dropped.
pub struct Dir(PathBuf);

impl Dir {
    /// A new, empty directory.
    pub fn new() -> Dir {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("sse-test-{}-keys-{n}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary directory");
        Dir(path)
    }

    /// The path of a file in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file; gives its path as text.
    pub fn write(&self, name: &str, content: &str) -> String {
        std::fs::write(self.path(name), content).expect("a file");
        self.text(name)
    }

    /// The path of a file in it as text.
    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("a plain path").to_string()
    }

    /// Reads a file.
    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect("a file")
    }

    /// A key pair: its private part for signing, its public part in PEM. `algorithm` as openssl
    /// names it: `RSA`, `EC` (on P-256), `ED25519`.
    pub fn pair(&self, algorithm: &str) -> (EncodingKey, String) {
        let (private, public) = (format!("{algorithm}.pem"), format!("{algorithm}.pub"));
        let curve: &[&str] = match algorithm {
            "EC" => &["-pkeyopt", "ec_paramgen_curve:P-256"],
            _ => &[],
        };
        self.openssl(&[&["genpkey", "-algorithm", algorithm, "-out", &private], curve].concat());
        self.openssl(&["pkey", "-in", &private, "-pubout", "-out", &public]);
        let pem = self.read(&private);
        let key = match algorithm {
            "RSA" => EncodingKey::from_rsa_pem(pem.as_bytes()),
            "EC" => EncodingKey::from_ec_pem(pem.as_bytes()),
            _ => EncodingKey::from_ed_pem(pem.as_bytes()),
        };
        (key.expect("a private key"), self.read(&public))
    }

    /// A certificate for 127.0.0.1 (`server.pem`, `server.key`), signed by an authority (`ca.pem`).
    pub fn certificate(&self) {
        let new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
        let ca = ["req", "-x509", "-days", "2", "-subj", "/CN=test authority", "-keyout", "ca.key", "-out", "ca.pem"];
        self.openssl(&[&ca[..], &new].concat());
        let leaf = ["req", "-subj", "/CN=127.0.0.1", "-keyout", "server.key", "-out", "server.csr"];
        self.openssl(&[&leaf[..], &new].concat());
        self.write("ext", "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n");
        let sign = ["x509", "-req", "-days", "2", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key"];
        self.openssl(&[&sign[..], &["-CAcreateserial", "-extfile", "ext", "-out", "server.pem"]].concat());
    }

    fn openssl(&self, arguments: &[&str]) {
        let done = Command::new("openssl").args(arguments).current_dir(&self.0).output().expect("openssl is installed");
        assert!(done.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

impl AsRef<Path> for Dir {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// SHA-256 in hex.
pub fn sha256(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The setting `api_keys` for these keys, each with its scope.
pub fn api_keys(keys: &[(&str, &str)]) -> String {
    let keys: Vec<_> = keys.iter().map(|(key, scope)| json!({"sha256": sha256(key), "scopes": [scope]})).collect();
    json!(keys).to_string()
}
