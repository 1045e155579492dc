//! Values of the configuration: what a key may say, and what to do when it says something else.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use toml::de::DeValue;

use super::Value;
use crate::lane::mark::Mark;

/// What is wrong with a value, and the remedy.
pub(super) type Bad = (String, String);

/// `sun_path` of a Unix socket's address, less its terminating zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Most prefixes of one list: what the XDP program has room for is shared with own addresses.
const PREFIXES_MAX: usize = 4096;

pub(super) fn bad(message: String, remedy: impl Into<String>) -> Bad {
    (message, remedy.into())
}

pub(super) fn wrong_type(expected: &str, found: &DeValue) -> Bad {
    bad(format!("expected {expected}, found {}", found.type_str()), format!("write {expected}"))
}

pub(super) fn text<'a>(value: &'a Value) -> Result<&'a str, Bad> {
    match value.get_ref() {
        DeValue::String(text) => Ok(text),
        other => Err(wrong_type("text in quotes", other)),
    }
}

pub(super) fn one_of<T: Clone>(value: &Value, all: &[(&str, T)]) -> Result<T, Bad> {
    let found = text(value)?;
    let known = || all.iter().map(|(name, _)| format!("{name:?}")).collect::<Vec<_>>().join(", ");
    all.iter().find(|(name, _)| *name == found).map(|(_, meaning)| meaning.clone()).ok_or_else(
        || bad(format!("{found:?} is none of its values"), format!("use one of {}", known())),
    )
}

pub(super) fn number<T: TryFrom<u64>>(value: &Value, least: u64, most: u64) -> Result<T, Bad> {
    let range = format!("a whole number from {least} to {most}");
    let DeValue::Integer(integer) = value.get_ref() else {
        return Err(wrong_type(&range, value.get_ref()));
    };
    u64::from_str_radix(integer.as_str(), integer.radix())
        .ok()
        .filter(|number| (least..=most).contains(number))
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| bad(format!("{integer} is out of range"), format!("use {range}")))
}

pub(super) fn power_of_two(number: u32) -> Result<u32, Bad> {
    if number.is_power_of_two() {
        return Ok(number);
    }
    let below = 1 << number.ilog2();
    Err(bad(format!("{number} is not a power of two"), format!("use {below} or {}", 2 * below)))
}

pub(super) fn core_list(value: &Value) -> Result<Vec<usize>, Bad> {
    let DeValue::Array(array) = value.get_ref() else {
        return Err(wrong_type("a list of CPU cores, like [2, 3],", value.get_ref()));
    };
    let cores =
        array.iter().map(|core| number(core, 0, 65535)).collect::<Result<Vec<usize>, Bad>>()?;
    for (index, core) in cores.iter().enumerate() {
        if cores[..index].contains(core) {
            return Err(bad(
                format!("core {core} is named twice"),
                "give each worker a core of its own",
            ));
        }
    }
    Ok(cores)
}

/// An idle timeout as people write it, in nanoseconds: "30s", "500ms", "2min". Else what is wrong with it,
/// and the remedy.
pub fn idle_timeout_ns(text: &str) -> Result<u64, (String, String)> {
    const LONGEST: Duration = Duration::from_secs(24 * 3600);
    let duration =
        humantime::parse_duration(text).map_err(|error| idle_timeout_bad(&error.to_string()))?;
    if duration.is_zero() || duration > LONGEST {
        return Err(idle_timeout_bad(&format!("{text:?} is out of range")));
    }
    Ok(duration.as_nanos() as u64)
}

fn idle_timeout_bad(why: &str) -> Bad {
    bad(
        why.to_owned(),
        "use a time with its unit, above 0 and up to 24h, like \"30s\" or \"500ms\"",
    )
}

pub(super) fn dscp_mark(value: &Value) -> Result<Mark, Bad> {
    let dscp = match value.get_ref() {
        DeValue::Integer(_) => return number::<u8>(value, 0, 63).map(dscp_in_range),
        DeValue::String(name) => dscp_by_name(name),
        other => return Err(wrong_type("a DSCP, like \"AF21\" or 18,", other)),
    };
    dscp.map(dscp_in_range).ok_or_else(|| {
        bad(
            "no such DSCP".to_owned(),
            "use CS0 to CS7, AF11 to AF43, EF, VA, LE, or a number from 0 to 63",
        )
    })
}

pub(super) fn boolean(value: &Value) -> Result<bool, Bad> {
    match value.get_ref() {
        DeValue::Boolean(on) => Ok(*on),
        other => Err(wrong_type("true or false", other)),
    }
}

pub(super) fn socket_path(value: &Value) -> Result<PathBuf, Bad> {
    let path = text(value)?;
    if path.is_empty() || path.len() > SOCKET_PATH_BYTES_MAX {
        return Err(bad(
            format!("a socket's path has 1 to {SOCKET_PATH_BYTES_MAX} bytes"),
            "use a shorter path, like \"/run/lanesplit/control.sock\"",
        ));
    }
    Ok(PathBuf::from(path))
}

pub(super) fn interface_name(value: &Value) -> Result<String, Bad> {
    let name = text(value)?;
    // IFNAMSIZ, 16, counts the terminating zero.
    if !(1..=15).contains(&name.len()) {
        return Err(bad(
            "an interface's name has 1 to 15 characters".to_owned(),
            "`ip link show` lists the interfaces",
        ));
    }
    Ok(name.to_owned())
}

pub(super) fn idle_timeout(value: &Value) -> Result<u64, Bad> {
    idle_timeout_ns(text(value).map_err(|(message, _)| idle_timeout_bad(&message))?)
}

/// Where flows are saved; nothing for nowhere.
pub(super) fn state_file(value: &Value) -> Result<Option<PathBuf>, Bad> {
    let path = PathBuf::from(text(value)?);
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    // With a folder and a name, so that a new file can be written beside the old one.
    if !path.is_absolute() || path.file_name().is_none() || text(value)?.ends_with('/') {
        return Err(bad(
            format!("{:?} is no absolute path of a file", path.display().to_string()),
            "use one like \"/var/lib/lanesplit/flows\", or \"\" to save nothing",
        ));
    }
    Ok(Some(path))
}

/// Time between two saves of the flows.
pub(super) fn state_interval(value: &Value) -> Result<Duration, Bad> {
    const RANGE: std::ops::RangeInclusive<Duration> =
        Duration::from_millis(100)..=Duration::from_secs(3600);
    let remedy = "use a time with its unit, from 100ms to 1h, like \"5s\"";
    let found = text(value).map_err(|(message, _)| bad(message, remedy))?;
    let interval = humantime::parse_duration(found).map_err(|why| bad(why.to_string(), remedy))?;
    if !RANGE.contains(&interval) {
        return Err(bad(format!("{found:?} is out of range"), remedy));
    }
    Ok(interval)
}

/// An address that one host has.
pub(super) fn host_address(value: &Value) -> Result<IpAddr, Bad> {
    let found = text(value)?;
    let remedy = "use the IPv4 or IPv6 address of one host, like \"192.0.2.1\" or \"2001:db8::1\"";
    let address: IpAddr =
        found.parse().map_err(|_| bad(format!("{found:?} is no IP address"), remedy))?;
    let why = match address {
        IpAddr::V4(address) if address.is_broadcast() => "everybody",
        _ if address.is_unspecified() => "nobody",
        _ if address.is_multicast() => "a group",
        _ if address.is_loopback() => "whoever asks",
        _ => return Ok(address),
    };
    Err(bad(format!("{address} is the address of {why}"), remedy))
}

/// A prefix without host bits.
pub(super) fn prefix(value: &Value) -> Result<IpNet, Bad> {
    let prefix = network(value)?;
    if prefix.trunc() != prefix {
        return Err(bad(
            format!("{prefix} has bits behind its first {}", prefix.prefix_len()),
            format!("use {:?}", prefix.trunc().to_string()),
        ));
    }
    Ok(prefix)
}

/// An address with the length of its network.
pub(super) fn network(value: &Value) -> Result<IpNet, Bad> {
    let found = text(value)?;
    found.parse().map_err(|_| {
        bad(
            format!("{found:?} is no address with a prefix length"),
            "write it like \"10.1.0.0/16\" or \"2001:db8:1::/48\"",
        )
    })
}

pub(super) fn prefixes(value: &Value) -> Result<Vec<IpNet>, Bad> {
    let found = list("prefixes, like [\"10.1.0.0/16\"],", value, prefix)?;
    if found.len() > PREFIXES_MAX {
        return Err(bad(
            format!("{} prefixes are too many", found.len()),
            format!("join them: there is room for {PREFIXES_MAX}"),
        ));
    }
    for (index, one) in found.iter().enumerate() {
        if found[..index].contains(one) {
            return Err(bad(format!("{one} is named twice"), "name each prefix once"));
        }
    }
    Ok(found)
}

pub(super) fn networks(value: &Value) -> Result<Vec<IpNet>, Bad> {
    list("addresses with their prefix lengths, like [\"10.1.0.1/16\"],", value, network)
}

fn list<T>(
    what: &str,
    value: &Value,
    parse: impl Fn(&Value) -> Result<T, Bad>,
) -> Result<Vec<T>, Bad> {
    match value.get_ref() {
        DeValue::Array(array) => array.iter().map(parse).collect(),
        other => Err(wrong_type(&format!("a list of {what}"), other)),
    }
}

/// A MAC address of one host.
pub(super) fn mac_address(value: &Value) -> Result<[u8; 6], Bad> {
    let found = text(value)?;
    let wrong = || {
        bad(
            format!("{found:?} is no MAC address of one host"),
            "write six bytes of which the first is even, like \"02:00:00:00:00:01\"",
        )
    };
    let mut mac = [0; 6];
    let mut parts = found.split(':');
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2).ok_or_else(wrong)?;
        *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
    }
    // The lowest bit of the first byte is that of groups.
    match parts.next().is_none() && mac[0] & 1 == 0 {
        true => Ok(mac),
        false => Err(wrong()),
    }
}

fn dscp_in_range(dscp: u8) -> Mark {
    Mark::new(dscp).expect("numbers up to 63 and names were checked")
}

/// The names of IANA's DSCP registry: RFC 2474 (CS), 2597 (AF), 3246 (EF), 5865 (VA), 8622 (LE).
fn dscp_by_name(name: &str) -> Option<u8> {
    let digit = |text: &str, most: u8| u8::from_str(text).ok().filter(|digit| *digit <= most);
    match name {
        "EF" => Some(46),
        "VA" => Some(44),
        "LE" => Some(1),
        _ if name.len() == 3 && name.starts_with("CS") => {
            digit(&name[2..], 7).map(|class| 8 * class)
        }
        _ if name.len() == 4 && name.starts_with("AF") && name.is_ascii() => {
            let class = digit(&name[2..3], 4).filter(|class| *class > 0)?;
            let precedence = digit(&name[3..4], 3).filter(|precedence| *precedence > 0)?;
            Some(8 * class + 2 * precedence)
        }
        _ => None,
    }
}
