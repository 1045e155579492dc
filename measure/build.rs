//! Compiles the XDP program of a tap, so that no binary lies in the tree.

use std::env;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::{Command, exit};

const SOURCE: &str = "src/source/xdp/tap.bpf.c";

fn main() {
    println!("cargo:rerun-if-changed={SOURCE}");
    println!("cargo:rerun-if-env-changed=CLANG");
    let compiler = env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    let folder = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));

    // -g makes the BTF from which the loader learns the maps and the kernel's functions.
    let status = Command::new(&compiler)
        .args(["-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Wextra", "-Werror"])
        .args(["-nostdinc", "-c", SOURCE, "-o"])
        .arg(folder.join("tap.bpf.o"))
        .status();

    match status {
        Ok(status) if status.success() => {}
        Ok(status) => fail(&format!("`{compiler}` could not compile {SOURCE} ({status})")),
        Err(error) if error.kind() == ErrorKind::NotFound => fail(&format!(
            "`{compiler}` is not installed; the XDP program ({SOURCE}) needs it. \
             On Debian: apt-get install clang. Another name for it goes into CLANG."
        )),
        Err(error) => fail(&format!("`{compiler}` did not start: {error}")),
    }
}

fn fail(reason: &str) -> ! {
    println!("cargo::error={reason}");
    exit(1);
}
