//! Compiles the XDP programs, so that no binary lies in the tree.

use std::env;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::{Command, exit};

const FOLDER: &str = "src/xdp";
/// Inline mode's and routed mode's.
const PROGRAMS: [&str; 2] = ["program", "routed"];

fn main() {
    println!("cargo:rerun-if-changed={FOLDER}/kernel.bpf.h");
    println!("cargo:rerun-if-env-changed=CLANG");
    for program in PROGRAMS {
        compile(program);
    }
}

fn compile(program: &str) {
    let source = format!("{FOLDER}/{program}.bpf.c");
    println!("cargo:rerun-if-changed={source}");
    let compiler = env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    let directory = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let object = directory.join(format!("{program}.bpf.o"));

    // -g makes the BTF from which the loader learns the maps.
    let status = Command::new(&compiler)
        .args(["-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Wextra", "-Werror"])
        .args(["-nostdinc", "-c", &source, "-o"])
        .arg(&object)
        .status();

    match status {
        Ok(status) if status.success() => {}
        Ok(status) => fail(&format!("`{compiler}` could not compile {source} ({status})")),
        Err(error) if error.kind() == ErrorKind::NotFound => fail(&format!(
            "`{compiler}` is not installed; the XDP program ({source}) needs it. \
             On Debian: apt-get install clang. Another name for it goes into CLANG."
        )),
        Err(error) => fail(&format!("`{compiler}` did not start: {error}")),
    }
}

fn fail(reason: &str) -> ! {
    println!("cargo::error={reason}");
    exit(1);
}
