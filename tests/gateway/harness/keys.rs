//! Keys of all kinds: made by openssl when a test needs them, so that none lies in the repository.

use jsonwebtoken::EncodingKey;
use serde_json::{Value, json};
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
        let ca = [
            "req",
            "-x509",
            "-days",
            "2",
            "-subj",
            "/CN=test authority",
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
        ];
        self.openssl(&[&ca[..], &new].concat());
        let leaf = ["req", "-subj", "/CN=127.0.0.1", "-keyout", "server.key", "-out", "server.csr"];
        self.openssl(&[&leaf[..], &new].concat());
        self.write(
            "ext",
            "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n",
        );
        let sign = [
            "x509",
            "-req",
            "-days",
            "2",
            "-in",
            "server.csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
        ];
        self.openssl(
            &[&sign[..], &["-CAcreateserial", "-extfile", "ext", "-out", "server.pem"]].concat(),
        );
    }

    /// The public part of a [`Dir::pair`] as an issuer publishes it.
    pub fn jwk(&self, algorithm: &str, kid: &str) -> Value {
        let public = format!("{algorithm}.pub");
        let der = self.openssl(&["pkey", "-pubin", "-in", &public, "-outform", "DER"]);
        let last = |n: usize, of: usize| base64(&der[der.len() - n..][..of]);
        match algorithm {
            "RSA" => {
                let hex = self.openssl(&["rsa", "-pubin", "-in", &public, "-noout", "-modulus"]);
                let hex = String::from_utf8(hex).expect("text").trim().replace("Modulus=", "");
                let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
                let modulus: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
                json!({"kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid, "n": base64(&modulus), "e": "AQAB"})
            }
            "EC" => {
                json!({"kty": "EC", "crv": "P-256", "kid": kid, "x": last(64, 32), "y": last(32, 32)})
            }
            _ => {
                json!({"kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": kid, "x": last(32, 32)})
            }
        }
    }

    fn openssl(&self, arguments: &[&str]) -> Vec<u8> {
        let done = Command::new("openssl")
            .args(arguments)
            .current_dir(&self.0)
            .output()
            .expect("openssl is installed");
        assert!(
            done.status.success(),
            "openssl {arguments:?}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
        done.stdout
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

/// Base64 as of JWS (RFC 7515): URL-safe, without padding.
pub fn base64(bytes: &[u8]) -> String {
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let number =
            group.iter().fold(0u32, |n, b| n << 8 | u32::from(*b)) << (8 * (3 - group.len()));
        for place in 0..=group.len() {
            out.push(digits[(number >> (18 - 6 * place)) as usize & 63] as char);
        }
    }
    out
}

/// SHA-256 in hex.
pub fn sha256(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The setting `api_keys` for these keys, each with its scope.
pub fn api_keys(keys: &[(&str, &str)]) -> String {
    let keys: Vec<_> =
        keys.iter().map(|(key, scope)| json!({"sha256": sha256(key), "scopes": [scope]})).collect();
    json!(keys).to_string()
}
