//! The server: nginx with a configuration and a folder of its own, no service of the system.
//!
//! ```text
//!   folder/
//!     nginx.conf  certificate.pem  key.pem
//!     body/21040                   what GET /body/21040 answers: so many bytes, a sparse file
//!     temporary/  nginx.pid  error.log  sink.sock
//! ```
//!
//! It listens on ports 80 and 443 (TLS 1.3, ECDSA P-256) of one address. `PUT /sink` reads all of a body, keeps it
//! in memory, forgets it, and only then answers 204: nginx would answer at once, or write it to a disk, so it asks
//! itself over `sink.sock`, without the body.
//!
//! Records of TLS end where segments end ([`Wire::record_plain_bytes`]), and no session can be resumed, so that
//! packets can be told from bytes.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};

use super::records::Bulk;
use super::workload::{Mix, Wire};

/// Where requests without encryption go.
pub const PLAIN_PORT: u16 = 80;
/// Where those with it go.
pub const TLS_PORT: u16 = 443;

/// A server that was written down; [`Web::command`] starts it.
#[derive(Debug, Clone)]
pub struct Web {
    folder: PathBuf,
}

/// A server that cannot be written down.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// A file cannot be written.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// There is no certificate for that address.
    #[error("certificate for {address}: {error}")]
    Certificate {
        /// Whose.
        address: IpAddr,
        /// Why.
        error: rcgen::Error,
    },
    /// nginx would misread the folder's name.
    #[error(
        "{0}: nginx cannot have a folder with a space, a quote, a semicolon or a brace in its name"
    )]
    Folder(PathBuf),
}

impl Web {
    /// Writes all that nginx needs to answer the requests of a mix, plain and encrypted, at this address.
    ///
    /// # Errors
    ///
    /// When the folder cannot be written.
    pub fn write(
        folder: &Path,
        address: IpAddr,
        mix: &Mix,
        segment_bytes: u32,
    ) -> Result<Web, WebError> {
        let web = Web { folder: std::path::absolute(folder).map_err(at(folder))? };
        let folder = &web.folder;
        let name = folder.to_str().unwrap_or("\"");
        if name.contains(|letter: char| letter.is_whitespace() || "\"'\\;{}$".contains(letter)) {
            return Err(WebError::Folder(folder.clone()));
        }
        let wires = [false, true].map(|tls| Wire { segment_bytes, tls });
        for folder in [folder, &folder.join("body"), &folder.join("temporary")] {
            fs::create_dir_all(folder).map_err(at(folder))?;
        }
        let mut upload_bytes_max = 0;
        for (kind, wire) in mix.kinds.iter().flat_map(|kind| wires.map(|wire| (kind, wire))) {
            let bytes = wire.body_bytes(kind);
            match kind.bulk {
                Bulk::Download => web.body(bytes)?,
                Bulk::Upload => upload_bytes_max = bytes.max(upload_bytes_max),
            }
        }
        web.certify(address)?;
        // One that was killed left it, and nginx does not bind to what is there.
        let socket = folder.join("sink.sock");
        match fs::remove_file(&socket) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(at(&socket)(error)),
            _ => {}
        }
        let text = configuration(folder, address, wires[1], upload_bytes_max);
        write(&folder.join("nginx.conf"), &text)?;
        Ok(web)
    }

    /// The certificate, which is the one to trust.
    pub fn certificate(&self) -> PathBuf {
        self.folder.join("certificate.pem")
    }

    /// What nginx complains about.
    pub fn error_log(&self) -> PathBuf {
        self.folder.join("error.log")
    }

    /// What starts it, in the foreground; SIGTERM ends it.
    pub fn command(&self) -> Vec<String> {
        let path = |name: &str| self.folder.join(name).display().to_string();
        let words = ["nginx", "-e", &path("error.log"), "-c", &path("nginx.conf")];
        words.map(str::to_owned).to_vec()
    }

    fn body(&self, bytes: u64) -> Result<(), WebError> {
        let path = self.folder.join("body").join(bytes.to_string());
        File::create(&path).and_then(|file| file.set_len(bytes)).map_err(at(&path))
    }

    /// A certificate that vouches for itself, and only for this address.
    fn certify(&self, address: IpAddr) -> Result<(), WebError> {
        let fail = |error| WebError::Certificate { address, error };
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(fail)?;
        let mut parameters = CertificateParams::new([address.to_string()]).map_err(fail)?;
        parameters.distinguished_name = DistinguishedName::new();
        let certificate = parameters.self_signed(&key).map_err(fail)?;
        write(&self.certificate(), &certificate.pem())?;
        write(&self.folder.join("key.pem"), &key.serialize_pem())
    }
}

fn write(path: &Path, text: &str) -> Result<(), WebError> {
    fs::write(path, text).map_err(at(path))
}

fn at(path: &Path) -> impl Fn(io::Error) -> WebError + use<> {
    let path = path.to_owned();
    move |error| WebError::File { path: path.clone(), error }
}

fn configuration(folder: &Path, address: IpAddr, wire: Wire, upload_bytes_max: u64) -> String {
    let folder = folder.display();
    let address = match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    };
    let record_bytes = wire.record_plain_bytes();
    // One process: on a machine that gateways share, a second would only disturb, and whoever kills the one that was
    // started leaves none behind.
    format!(
        "daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    default_type application/octet-stream;
    sendfile on;
    tcp_nopush on;
    server_tokens off;
    etag off;
    client_max_body_size 0;
    client_body_buffer_size {upload_bytes_max};
    client_body_temp_path {folder}/temporary;
    proxy_temp_path {folder}/temporary;
    fastcgi_temp_path {folder}/temporary;
    uwsgi_temp_path {folder}/temporary;
    scgi_temp_path {folder}/temporary;
    server {{
        listen {address}:{PLAIN_PORT} backlog=4096;
        listen {address}:{TLS_PORT} ssl backlog=4096;
        ssl_certificate {folder}/certificate.pem;
        ssl_certificate_key {folder}/key.pem;
        ssl_protocols TLSv1.3;
        ssl_session_cache off;
        ssl_session_tickets off;
        ssl_conf_command NumTickets 0;
        ssl_buffer_size {record_bytes};
        root {folder};
        location /body/ {{ }}
        location = /sink {{
            proxy_pass http://unix:{folder}/sink.sock;
            proxy_pass_request_body off;
            proxy_set_header Content-Length \"\";
        }}
    }}
    server {{
        listen unix:{folder}/sink.sock;
        return 204;
    }}
}}
"
    )
}
