//! nginx, curl and files of random bytes.

use std::fs;
use std::path::{Path, PathBuf};

use crate::lab::{Namespace, Process, wait_for};
use crate::site::{BOUND, Site, text};
use crate::traffic::random_bytes;

/// The sizes of files that are carried, in bytes: 1 kB to 100 MB.
pub const SIZES: [usize; 6] = [1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];

/// nginx on one of a site's hosts, on port 80 of all its addresses. It takes uploads under `/up/`.
pub struct Nginx {
    _process: Process,
    root: PathBuf,
}

impl Nginx {
    /// Starts it and waits until it listens.
    pub fn start(site: &Site, host: &Namespace) -> Nginx {
        let root = site.folder.file("www");
        let temporary = site.folder.file("nginx");
        for folder in [&root, &temporary, &root.join("up")] {
            fs::create_dir_all(folder).expect("the folder can be written to");
        }
        let configuration = site.folder.file("nginx.conf");
        let temporary = text(&temporary);
        let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {temporary}/{name};\n"))
            .concat();
        let root_text = text(&root);
        let words = format!(
            "daemon off; master_process off; pid {temporary}/pid; error_log {temporary}/error.log;\n\
             events {{ worker_connections 256; }}\n\
             http {{ access_log off; sendfile on; client_max_body_size 0;\n{paths}\
             server {{ listen 80; listen [::]:80; root {root_text};\n\
             location /up/ {{ dav_methods PUT; }} }} }}\n"
        );
        fs::write(&configuration, words).expect("the folder can be written to");
        let log = format!("{temporary}/start.log");
        let process = host.spawn(&["nginx", "-e", &log, "-c", text(&configuration)]);
        wait_for("nginx to listen", BOUND, || {
            host.run(&["ss", "-Hltn", "sport = :80"]).lines().count() == 2
        });
        Nginx { _process: process, root }
    }

    /// Gives it a file of `size` random bytes; returns the file's name.
    pub fn serve(&self, size: usize) -> String {
        let name = format!("{size}-bytes");
        fs::write(self.root.join(&name), random_bytes(size)).expect("there is room");
        name
    }

    /// Where a file that it serves or has taken lies.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

/// Downloads a file with curl on `host` from `address` and compares it with what is served.
pub fn download(site: &Site, host: &Namespace, nginx: &Nginx, address: &str, name: &str) {
    let copy = site.folder.file("download");
    curl(host, &["--output", text(&copy), &url(address, name)]);
    assert_same(&nginx.path(name), &copy);
    fs::remove_file(copy).expect("curl made it");
}

/// Uploads a file with curl on `host` to `address` and compares it with what arrived.
pub fn upload(host: &Namespace, nginx: &Nginx, address: &str, name: &str) {
    let arrived = format!("up/{name}");
    curl(host, &["--upload-file", text(&nginx.path(name)), &url(address, &arrived)]);
    assert_same(&nginx.path(name), &nginx.path(&arrived));
    fs::remove_file(nginx.path(&arrived)).expect("nginx made it");
}

fn curl(host: &Namespace, arguments: &[&str]) {
    let bounded =
        ["curl", "--silent", "--show-error", "--fail", "--noproxy", "*", "--max-time", "50"];
    host.run(&[&bounded, arguments].concat());
}

fn url(address: &str, name: &str) -> String {
    match address.contains(':') {
        true => format!("http://[{address}]/{name}"),
        false => format!("http://{address}/{name}"),
    }
}

fn assert_same(one: &Path, other: &Path) {
    let [a, b] = [one, other].map(|path| fs::read(path).expect("readable"));
    // Not assert_eq: nobody wants to read the bytes.
    assert!(a == b, "{} and {} differ", one.display(), other.display());
}
