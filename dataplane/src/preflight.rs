//! What can only be wrong with a configuration on this machine: found by looking, without touching a port.

mod routed;

use std::collections::BTreeSet;

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

use crate::batch::PortId;
use crate::config::{Config, Located, Ports, Problem};
use crate::xdp::{Interface, mtu_max};

/// What a gateway needs to know of the machine to start.
#[derive(Debug)]
pub struct Plan {
    /// The interfaces, LAN first.
    pub interfaces: [Interface; 2],
    /// The core of each worker; the n-th serves queue n.
    pub cores: Vec<usize>,
    /// What would be better otherwise, in words.
    pub warnings: Vec<String>,
}

/// Looks at the interfaces and cores that the configuration names, for a gateway that runs with so many workers. Ports
/// may have more queues than that by now: to serve only some is better than none.
///
/// # Errors
///
/// Everything that is wrong, at once.
pub fn plan_running(config: &Config, workers: u32) -> Result<Plan, Vec<Problem>> {
    plan(config, Some(workers))
}

fn plan(config: &Config, workers: Option<u32>) -> Result<Plan, Vec<Problem>> {
    let Some(ports) = &config.ports else {
        return Err(vec![config.missing_ports()]);
    };
    let mut problems = Vec::new();
    let lan = look_at(config, PortId::Lan, &ports.lan, &mut problems);
    let wan = look_at(config, PortId::Wan, &ports.wan, &mut problems);
    let warnings = config.routed.as_ref().map_or_else(Vec::new, |routed| {
        routed::look(config, routed, ports, [lan.as_ref(), wan.as_ref()], &mut problems)
    });
    let queues = lan.as_ref().zip(wan.as_ref()).and_then(|(lan, wan)| {
        let fewest = lan.queues.min(wan.queues);
        if let Some(workers) = workers.filter(|&workers| workers <= fewest) {
            return Some(workers);
        }
        if lan.queues == wan.queues {
            return Some(lan.queues);
        }
        problems.push(unequal_queues(config, ports, lan.queues, wan.queues));
        None
    });
    let cores = choose_cores(config, queues, &mut problems);
    match (lan, wan, problems.is_empty()) {
        (Some(lan), Some(wan), true) => Ok(Plan { interfaces: [lan, wan], cores, warnings }),
        _ => Err(problems),
    }
}

/// The same for a start: a worker for each queue, and a place to save flows. The latter is no reason to leave ports closed
/// which a running gateway could open again.
///
/// # Errors
///
/// Everything that is wrong, at once.
pub fn plan_start(config: &Config) -> Result<Plan, Vec<Problem>> {
    let planned = plan(config, None);
    let Some(missing) = missing_folder(config) else { return planned };
    let mut problems = planned.err().unwrap_or_default();
    problems.push(missing);
    Err(problems)
}

fn missing_folder(config: &Config) -> Option<Problem> {
    let file = &config.state.as_ref()?.file;
    let folder = file.value.parent()?;
    let why = match std::fs::metadata(folder) {
        Ok(metadata) if metadata.is_dir() => return None,
        Ok(_) => "it is no folder".to_owned(),
        Err(error) => error.to_string(),
    };
    let remedy = format!(
        "make it (`install -d -m 0700 {0}`, for the user that lanesplitd runs as; with systemd, `StateDirectory=`), or \
         set `file = \"\"` to save nothing",
        folder.display()
    );
    let message = format!("flows cannot be saved in {}: {why}", folder.display());
    Some(config.problem(file, message, &remedy))
}

fn look_at(
    config: &Config,
    port: PortId,
    name: &Located<String>,
    problems: &mut Vec<Problem>,
) -> Option<Interface> {
    let interface = match Interface::find(&name.value) {
        Ok(interface) => interface,
        Err(error) => {
            let remedy = "`ip link show` lists the interfaces of this network namespace";
            problems.push(config.problem(name, error.to_string(), remedy));
            return None;
        }
    };
    if !interface.is_ethernet() {
        problems.push(no_ethernet(config, name, interface.link_type));
        return None;
    }
    let role = config.role(port);
    let most = mtu_max(config.xdp.frame_bytes) - role.room_bytes();
    if interface.mtu > most {
        let message = format!(
            "{}: its MTU of {} does not fit `frame_bytes = {}`, which has room for {most}{}",
            name.value,
            interface.mtu,
            config.xdp.frame_bytes,
            if role.room_bytes() > 0 { " beside a tunnel's headers" } else { "" }
        );
        let lower = format!("lower it (`ip link set dev {} mtu {most}`)", name.value);
        let remedy = match mtu_max(4096) - role.room_bytes() >= interface.mtu {
            true => format!("set `frame_bytes = 4096`, or {lower}"),
            false => lower,
        };
        problems.push(config.problem(name, message, &remedy));
    }
    Some(interface)
}

fn no_ethernet(config: &Config, name: &Located<String>, link_type: u16) -> Problem {
    let kind = match link_type {
        libc::ARPHRD_LOOPBACK => ", loopback",
        libc::ARPHRD_NONE => ", packets without a link header",
        _ => "",
    };
    let message =
        format!("{} is no Ethernet interface: its link is of type {link_type}{kind}", name.value);
    let remedy =
        "name a port whose frames have Ethernet headers: `ip link show` says link/ether of it";
    config.problem(name, message, remedy)
}

fn unequal_queues(config: &Config, ports: &Ports, lan: u32, wan: u32) -> Problem {
    let message = format!(
        "{} has {lan} queues and {} has {wan}: a worker serves the same queue of both",
        ports.lan.value, ports.wan.value
    );
    let fewer = lan.min(wan);
    let larger = if lan > wan { &ports.lan } else { &ports.wan };
    let remedy = format!("`ethtool -L {} combined {fewer}` gives it as many", larger.value);
    config.problem(larger, message, &remedy)
}

/// The configured cores, or the highest ones this process may run on, one per queue.
fn choose_cores(config: &Config, queues: Option<u32>, problems: &mut Vec<Problem>) -> Vec<usize> {
    let allowed = allowed_cores();
    let chosen = &config.cores;
    if chosen.value.is_empty() {
        let queues = queues.unwrap_or(1) as usize;
        if queues > allowed.len() {
            let message = format!(
                "the ports have {queues} queues, and this process may run on {} cores",
                allowed.len()
            );
            let remedy = "each queue needs a worker and each worker a core: `ethtool -L` sets the number of \
                          queues";
            problems.push(config.problem(chosen, message, remedy));
        }
        return allowed.into_iter().rev().take(queues).collect();
    }
    for core in &chosen.value {
        if !allowed.contains(core) {
            let message = format!("this process may not run on core {core}, or there is none");
            let remedy = format!("the cores it may run on are {allowed:?}");
            problems.push(config.problem(chosen, message, &remedy));
        }
    }
    if let Some(queues) = queues
        && chosen.value.len() != queues as usize
    {
        let message = format!(
            "{} workers for {queues} queues: each queue needs exactly one",
            chosen.value.len()
        );
        let remedy = format!(
            "name {queues} cores, or set the number of queues of both ports (`ethtool -L DEVICE combined {}`)",
            chosen.value.len()
        );
        problems.push(config.problem(chosen, message, &remedy));
    }
    chosen.value.clone()
}

/// The cores this process may run on, ascending. When the kernel does not say, none.
fn allowed_cores() -> BTreeSet<usize> {
    let mask = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
    (0..CpuSet::count()).filter(|core| mask.is_set(*core).unwrap_or(false)).collect()
}
