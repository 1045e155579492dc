//! Compiles the XDP program of a tap, so that no binary lies in the tree, and notes the commit of the sources.

use std::env;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

/// What decides whether the programs are those of the commit.
const SOURCES: [&str; 4] = ["src", "../dataplane/src", "../Cargo.toml", "../Cargo.lock"];
const SOURCE: &str = "src/source/xdp/tap.bpf.c";

fn main() {
    println!("cargo:rustc-env=LANESPLIT_COMMIT={}", commit().as_deref().unwrap_or("unknown"));
    compile_tap();
}

/// The commit that is checked out, with `-dirty` behind it when sources differ from it; none without git or outside of
/// a repository.
fn commit() -> Option<String> {
    // What is not there would make cargo run this every time.
    let rerun_if_changed = |path: &str| {
        if Path::new(path).exists() {
            println!("cargo:rerun-if-changed={path}");
        }
    };
    SOURCES.iter().for_each(|path| rerun_if_changed(path));
    let mut references = ["HEAD", "logs/HEAD", "packed-refs"].map(str::to_owned).to_vec();
    references.extend(git(&["symbolic-ref", "-q", "HEAD"]));
    for reference in &references {
        rerun_if_changed(&git(&["rev-parse", "--git-path", reference])?);
    }
    // Sources that somebody keeps in a repository of something else have no commit of their own.
    git(&["rev-parse", "--show-prefix"]).filter(|prefix| prefix == "measure/")?;
    let commit = git(&["rev-parse", "HEAD"])?;
    let changed = git(&[&["status", "--porcelain", "--"][..], &SOURCES].concat())?;
    Some(if changed.is_empty() { commit } else { commit + "-dirty" })
}

/// What git says, if it succeeds. Whose the repository is does not matter for what is read of it.
fn git(arguments: &[&str]) -> Option<String> {
    let mut git = Command::new("git");
    git.args(["--no-optional-locks", "-c", "safe.directory=*"]).args(arguments);
    let output = git.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn compile_tap() {
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
