//! Programs that run in a namespace for as long as somebody holds on to them.
//!
//! **Invariant.** A process is ended when it is dropped, at the latest, and waited for. It has a process group of its
//! own, so Ctrl-C in a terminal reaches the laboratory alone, which ends things in their order. Should the laboratory
//! be killed, the kernel kills the process: no gateway goes on at a priority before all others.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, SysconfVar, sysconf};

use super::error::LabError;
use super::interrupt::Interrupt;
use super::namespace::Namespace;

/// Before what else the machine does, as far as the kernel lets us: a network does not wait for a processor.
pub(super) const NICENESS: &str = "-10";

/// Lines of a log that are worth repeating.
const LAST_WORDS: usize = 4;

/// A program of the laboratory.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program in a namespace. What it writes goes to `NAME.out` and `NAME.log` in a folder.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn start(
        name: &str,
        namespace: &Namespace,
        command: &[&str],
        folder: &Path,
    ) -> Result<Process, LabError> {
        let create = |suffix: &str| {
            let path = folder.join(format!("{name}.{suffix}"));
            let file = File::create(&path).map_err(LabError::file(&path))?;
            Ok::<_, LabError>((path, OwnedFd::from(file)))
        };
        let ((_, out), (log, err)) = (create("out")?, create("log")?);
        let child = Command::new("nice")
            .args(["-n", NICENESS])
            // Each of these becomes the next, so the signal is for the program itself. It comes when the thread ends
            // that started it, which is the main one.
            .args(["setpriv", "--pdeathsig", "KILL"])
            .args(["ip", "netns", "exec", namespace.name()])
            .args(command)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .process_group(0)
            .env_remove("LANESPLIT_LOG")
            .spawn()
            .map_err(|cause| LabError::Start { program: name.into(), cause })?;
        Ok(Process { name: name.into(), child, log })
    }

    /// What the laboratory calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The end of what it has said on standard error.
    pub fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LAST_WORDS)..].join(" / ")
    }

    /// # Errors
    ///
    /// When it does not run any more.
    pub fn check(&self) -> Result<(), LabError> {
        match self.end()? {
            None => Ok(()),
            Some(end) => Err(self.ended_badly(end)),
        }
    }

    /// Whether it has ended.
    ///
    /// # Errors
    ///
    /// When nobody knows.
    pub fn has_ended(&self) -> Result<bool, LabError> {
        Ok(self.end()?.is_some())
    }

    /// How it ended, if it did. What the kernel knows of it stays until this is dropped.
    fn end(&self) -> Result<Option<WaitStatus>, LabError> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
        let status = waitid(Id::Pid(self.pid()), flags)
            .map_err(|cause| LabError::Start { program: self.name.clone(), cause: cause.into() })?;
        Ok((status != WaitStatus::StillAlive).then_some(status))
    }

    fn ended_badly(&self, end: WaitStatus) -> LabError {
        let status = match end {
            WaitStatus::Exited(_, status) => format!("exit status {status}"),
            WaitStatus::Signaled(_, signal, _) => format!("by {signal}"),
            other => format!("{other:?}"),
        };
        let (program, said, log) = (self.name.clone(), self.last_words(), self.log.clone());
        LabError::Ended { program, status, said, log }
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// When it does not come within `bound`, or a signal does.
    pub fn wait(&self, interrupt: &Interrupt, bound: Duration) -> Result<(), LabError> {
        let what = format!("{} to end", self.name);
        interrupt.wait_for(
            &what,
            bound,
            || self.last_words(),
            || Ok(self.has_ended()?.then_some(())),
        )
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        // Who has ended already needs no signal.
        let _ = kill(self.pid(), Signal::SIGTERM);
    }

    /// Processor time that it and what it has started have taken so far, in seconds: also right after its end.
    pub fn cpu_s(&self) -> f64 {
        let group = self.pid().as_raw().to_string();
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let stats = processes.filter_map(|one| fs::read_to_string(one.path().join("stat")).ok());
        let ticks = stats.filter_map(|stat| ticks(&stat, &group)).sum::<u64>();
        let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
        ticks as f64 / per_second as f64
    }

    /// Waits for its end, and accepts nothing but success.
    ///
    /// # Errors
    ///
    /// As [`Process::wait`]; when it says that it failed.
    pub fn succeed(self, interrupt: &Interrupt, bound: Duration) -> Result<(), LabError> {
        self.wait(interrupt, bound)?;
        match self.end()? {
            Some(WaitStatus::Exited(_, 0)) => Ok(()),
            Some(end) => Err(self.ended_badly(end)),
            None => unreachable!("it was waited for"),
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // With what it has started itself.
        let _ = killpg(self.pid(), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

/// What a process of this group has taken, by its line in `/proc`. Behind the name, which may have spaces, are state,
/// parent and group; utime and stime are the fields 14 and 15 of the line (proc(5)).
fn ticks(stat: &str, group: &str) -> Option<u64> {
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    (*fields.get(2)? == group).then_some(number(14)? + number(15)?)
}
