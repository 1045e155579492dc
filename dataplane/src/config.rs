//! The configuration: a TOML file on top of `configs/default.toml`, checked as a whole.
//!
//! The default file is compiled in and read by the same code as the user's. It is the only source of defaults
//! and of the list of keys, so a key that is not in its manual does not exist. Whatever is wrong with a file
//! is found in one go, each [`Problem`] with its place and its remedy.

mod routed;
mod values;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use miette::{Diagnostic, NamedSource, SourceSpan};
use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use crate::batch::PortId;
use crate::flow::classifier::{Capacity, Policy, Rule};
use crate::lane::mark::Mark;
use crate::lane::{Lane, Lanes};
use crate::xdp::{Attach, CopyMode, Role, Settings as XdpSettings};
pub use routed::Routed;
pub use values::idle_timeout_ns;
use values::{Bad, number, one_of, wrong_type};

/// The manual and the source of every default.
pub const DEFAULTS: &str = include_str!("../../configs/default.toml");

/// Keys of `[ports]` that have no default, so the default file can only show them in a comment.
const PORT_KEYS: [&str; 2] = ["lan", "wan"];

/// One thing that is wrong, where, and what to do about it.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("{message}")]
pub struct Problem {
    message: String,
    #[source_code]
    text: NamedSource<Arc<str>>,
    #[label("{label}")]
    span: SourceSpan,
    label: &'static str,
    #[help]
    remedy: String,
}

/// A file that cannot be used: everything that is wrong with it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {cause}. Name an existing file with --config", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The reason.
        cause: std::io::Error,
    },
    /// The file can be read, and says something that cannot be.
    #[error("{} wrong with the configuration", count(.0.len()))]
    Problems(Vec<Problem>),
}

fn count(problems: usize) -> String {
    match problems {
        1 => "1 thing is".to_owned(),
        many => format!("{many} things are"),
    }
}

/// How a worker waits for packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Poll {
    /// It does not: it looks again at once.
    Busy,
    /// It looks for a moment, then sleeps until a packet wakes it.
    Adaptive,
}

/// A value, and where the user's file says it.
#[derive(Debug, Clone)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    span: Range<usize>,
}

/// The two interfaces.
#[derive(Debug, Clone)]
pub struct Ports {
    /// Towards the datacenter.
    pub lan: Located<String>,
    /// Towards the WAN.
    pub wan: Located<String>,
}

/// Where flows outlive the process.
#[derive(Debug, Clone)]
pub struct State {
    /// The file.
    pub file: Located<PathBuf>,
    /// Time between two saves.
    pub interval: Duration,
}

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The interfaces; a capture file needs none.
    pub ports: Option<Ports>,
    /// How packets get in and out.
    pub xdp: XdpSettings,
    /// Cores of the workers; empty for one per queue.
    pub cores: Located<Vec<usize>>,
    /// How workers wait.
    pub poll: Poll,
    /// How flows become classes.
    pub rule: Rule,
    /// How much state there may be.
    pub capacity: Capacity,
    /// Where classes go inline: their marks.
    pub lanes: Lanes,
    /// What there is besides in routed mode; none in inline mode.
    pub routed: Option<Routed>,
    /// Where flows are saved for the next start, if they are.
    pub state: Option<State>,
    /// Where `lanesplitd status` asks.
    pub control_socket: PathBuf,
    /// Least severe messages that are logged.
    pub log_level: String,
    source: NamedSource<Arc<str>>,
}

impl Config {
    /// Reads a file and checks everything that can be checked without looking at the system.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|cause| ConfigError::Unreadable { path: path.to_owned(), cause })?;
        Config::parse(&path.display().to_string(), &text)
    }

    /// What the default file says.
    pub fn defaults() -> Config {
        Config::parse("configs/default.toml", DEFAULTS).expect("a test reads the default file")
    }

    /// Reads the text of a file; `name` is what messages call it.
    pub fn parse(name: &str, text: &str) -> Result<Config, ConfigError> {
        let (defaults, errors) = DeTable::parse_recoverable(DEFAULTS);
        assert!(errors.is_empty(), "the default file is not TOML: {errors:?}");
        let (user, errors) = DeTable::parse_recoverable(text);
        let mut reader = Reader {
            source: NamedSource::new(name, Arc::from(text)),
            defaults: defaults.get_ref(),
            user: user.get_ref(),
            problems: Vec::new(),
        };
        for error in errors {
            let span = error.span().unwrap_or(0..0);
            reader.report(span, "here", format!("not TOML: {}", error.message()), TOML_REMEDY);
        }
        if reader.problems.is_empty() {
            reader.refuse_unknown_keys();
            let config = reader.read();
            if reader.problems.is_empty() {
                return Ok(config);
            }
        }
        Err(ConfigError::Problems(reader.problems))
    }

    /// The keys that `other` sets otherwise and that only a restart can change.
    pub fn differs_in_fixed_keys(&self, other: &Config) -> Vec<&'static str> {
        let name = |port: fn(&Ports) -> &Located<String>, config: &Config| {
            config.ports.as_ref().map(|ports| port(ports).value.clone())
        };
        let prefixes = |pick: fn(&Routed) -> &Located<Vec<IpNet>>, config: &Config| {
            config.routed.as_ref().map(|routed| pick(routed).value.clone())
        };
        let lane = |index: usize, config: &Config| {
            config.routed.as_ref().map(|routed| routed.lanes[index].value)
        };
        let fixed =
            |config: &Config| config.routed.as_ref().and_then(|routed| routed.fixed.clone());
        let state_file =
            |config: &Config| config.state.as_ref().map(|state| state.file.value.clone());
        let state_interval = |config: &Config| config.state.as_ref().map(|state| state.interval);
        let (one, two) = (&self.xdp, &other.xdp);
        let (has, wants) = (&self.capacity, &other.capacity);
        [
            ("mode", self.routed.is_some() != other.routed.is_some()),
            ("ports.lan", name(|ports| &ports.lan, self) != name(|ports| &ports.lan, other)),
            ("ports.wan", name(|ports| &ports.wan, self) != name(|ports| &ports.wan, other)),
            ("ports.attach", one.attach != two.attach),
            ("ports.copy", one.copy != two.copy),
            ("ports.frame_bytes", one.frame_bytes != two.frame_bytes),
            ("ports.ring_entries", one.ring_entries != two.ring_entries),
            ("workers.cores", self.cores.value != other.cores.value),
            ("workers.poll", self.poll != other.poll),
            ("workers.busy_poll_budget", one.busy_poll_budget != two.busy_poll_budget),
            ("classifier.ipv4_flows_max", has.ipv4_flows_max != wants.ipv4_flows_max),
            ("classifier.ipv6_flows_max", has.ipv6_flows_max != wants.ipv6_flows_max),
            (
                "classifier.fragmented_datagrams_max",
                has.fragmented_datagrams_max != wants.fragmented_datagrams_max,
            ),
            (
                "routed.local_prefixes",
                prefixes(|routed| &routed.local_prefixes, self)
                    != prefixes(|routed| &routed.local_prefixes, other),
            ),
            (
                "routed.remote_prefixes",
                prefixes(|routed| &routed.remote_prefixes, self)
                    != prefixes(|routed| &routed.remote_prefixes, other),
            ),
            ("lanes.short", changes_kind(lane(0, self), lane(0, other))),
            ("lanes.long", changes_kind(lane(1, self), lane(1, other))),
            ("routed.static_*", fixed(self) != fixed(other)),
            ("state.file", state_file(self) != state_file(other)),
            ("state.interval", state_interval(self) != state_interval(other)),
            ("control.socket", self.control_socket != other.control_socket),
            ("log.level", self.log_level != other.log_level),
        ]
        .into_iter()
        .filter_map(|(key, differs)| differs.then_some(key))
        .collect()
    }

    /// What a port is for.
    pub fn role(&self, port: PortId) -> Role {
        self.routed.as_ref().map_or(Role::Inline, |routed| routed.role(port))
    }

    /// A problem with one of the values, found by somebody who looked at the system.
    pub fn problem<T>(&self, value: &Located<T>, message: String, remedy: &str) -> Problem {
        problem(&self.source, value.span.clone(), "this value", message, remedy)
    }

    /// The problem of a gateway without interfaces.
    pub fn missing_ports(&self) -> Problem {
        let remedy = "add both, each with the name of an interface (`ip link show`):\n\n[ports]\nlan = \
                      \"eth1\"\nwan = \"eth2\"";
        let message = "`ports.lan` and `ports.wan` are missing".to_owned();
        problem(&self.source, 0..0, "in this file", message, remedy)
    }
}

const TOML_REMEDY: &str =
    "see https://toml.io for the syntax and configs/default.toml for the keys";

fn problem(
    source: &NamedSource<Arc<str>>,
    span: Range<usize>,
    label: &'static str,
    message: String,
    remedy: &str,
) -> Problem {
    Problem { message, text: source.clone(), span: span.into(), label, remedy: remedy.to_owned() }
}

struct Reader<'a> {
    source: NamedSource<Arc<str>>,
    defaults: &'a DeTable<'a>,
    user: &'a DeTable<'a>,
    problems: Vec<Problem>,
}

type Value<'a> = Spanned<DeValue<'a>>;

impl<'a> Reader<'a> {
    fn read(&mut self) -> Config {
        let is_routed =
            self.value("mode", |value| one_of(value, &[("inline", false), ("routed", true)]));
        if !is_routed {
            self.refuse_routed_keys();
        }
        let lanes = Lanes { short: self.lane("lanes.short"), long: self.lane("lanes.long") };
        Config {
            ports: self.ports(),
            xdp: self.xdp(),
            cores: self.located("workers.cores", values::core_list),
            poll: self.value("workers.poll", |value| {
                one_of(value, &[("busy", Poll::Busy), ("adaptive", Poll::Adaptive)])
            }),
            rule: self.rule(),
            capacity: Capacity {
                ipv4_flows_max: self.number("classifier.ipv4_flows_max", 1, 1 << 26),
                ipv6_flows_max: self.number("classifier.ipv6_flows_max", 1, 1 << 26),
                fragmented_datagrams_max: self.number(
                    "classifier.fragmented_datagrams_max",
                    1,
                    1 << 24,
                ),
            },
            lanes,
            routed: is_routed.then(|| self.routed()),
            state: self.state(),
            control_socket: self.value("control.socket", values::socket_path),
            log_level: self.value("log.level", |value| {
                let levels = ["error", "warn", "info", "debug", "trace"];
                one_of(value, &levels.map(|level| (level, level.to_owned())))
            }),
            source: self.source.clone(),
        }
    }

    fn ports(&mut self) -> Option<Ports> {
        let [lan, wan] = PORT_KEYS.map(|key| self.interface(&format!("ports.{key}")));
        if let [Some(one), None] | [None, Some(one)] =
            PORT_KEYS.map(|key| find(self.user, &format!("ports.{key}")))
        {
            self.report(
                one.span(),
                "only this one",
                "a gateway has two ports, and only one of `ports.lan` and `ports.wan` is named"
                    .to_owned(),
                "name the other interface too",
            );
        }
        let (lan, wan) = (lan?, wan?);
        if lan.value == wan.value {
            self.report(
                wan.span.clone(),
                "the same interface",
                format!("`ports.lan` and `ports.wan` are both {:?}", wan.value),
                "a gateway sits between two interfaces: name two different ones",
            );
        }
        Some(Ports { lan, wan })
    }

    fn interface(&mut self, path: &str) -> Option<Located<String>> {
        let value = find(self.user, path)?;
        let name = self.or_report(path, value, values::interface_name(value))?;
        Some(Located { value: name, span: value.span() })
    }

    fn xdp(&mut self) -> XdpSettings {
        XdpSettings {
            attach: self.value("ports.attach", |value| {
                let all = [
                    ("auto", Attach::Auto),
                    ("native", Attach::Native),
                    ("generic", Attach::Generic),
                ];
                one_of(value, &all)
            }),
            copy: self.value("ports.copy", |value| {
                let all = [
                    ("auto", CopyMode::Auto),
                    ("zero-copy", CopyMode::ZeroCopy),
                    ("copy", CopyMode::Copy),
                ];
                one_of(value, &all)
            }),
            frame_bytes: self.value("ports.frame_bytes", |value| {
                values::power_of_two(number::<u32>(value, 2048, 4096)?)
            }),
            ring_entries: self.value("ports.ring_entries", |value| {
                values::power_of_two(number::<u32>(value, 64, 32768)?)
            }),
            busy_poll_budget: self.number("workers.busy_poll_budget", 0, 65535),
        }
    }

    fn rule(&mut self) -> Rule {
        Rule {
            policy: self.value("classifier.policy", |value| {
                one_of(
                    value,
                    &[
                        ("split", Policy::Split),
                        ("ecmp", Policy::Ecmp),
                        ("spray", Policy::Spray),
                        ("none", Policy::None),
                    ],
                )
            }),
            threshold_packets: self.number("classifier.threshold_packets", 1, u32::MAX.into()),
            idle_timeout_ns: self.value("classifier.idle_timeout", values::idle_timeout),
            restart_on_syn: self.value("classifier.restart_on_syn", values::boolean),
        }
    }

    fn state(&mut self) -> Option<State> {
        let interval = self.value("state.interval", values::state_interval);
        let Located { value, span } = self.located("state.file", values::state_file);
        Some(State { file: Located { value: value?, span }, interval })
    }

    /// A lane that the user names is the user's own: nothing is added to it from the defaults.
    fn lane(&mut self, path: &str) -> Mark {
        let dscp = format!("{path}.dscp");
        if let Some(lane) = find(self.user, path)
            && ["dscp", "next_hop", "gre"]
                .iter()
                .all(|key| find(self.user, &format!("{path}.{key}")).is_none())
        {
            let (message, remedy) = match lane.get_ref() {
                DeValue::Table(_) => (
                    format!("the lane `{path}` has no mark"),
                    "give it one, for example: dscp = \"AF21\"".to_owned(),
                ),
                other => wrong_type("a table with a `dscp`", other),
            };
            self.report(lane.span(), "this lane", message, &remedy);
        }
        self.value(&dscp, values::dscp_mark)
    }

    fn number<T: TryFrom<u64>>(&mut self, path: &str, least: u64, most: u64) -> T {
        self.value(path, |value| number(value, least, most))
    }

    /// The user's value; the default's where there is none, or a bad one, which is reported.
    fn value<T>(&mut self, path: &str, parse: impl Fn(&Value) -> Result<T, Bad>) -> T {
        self.located(path, parse).value
    }

    fn located<T>(&mut self, path: &str, parse: impl Fn(&Value) -> Result<T, Bad>) -> Located<T> {
        if let Some(value) = find(self.user, path)
            && let Some(parsed) = self.or_report(path, value, parse(value))
        {
            return Located { value: parsed, span: value.span() };
        }
        let default =
            find(self.defaults, path).unwrap_or_else(|| panic!("the default file has no `{path}`"));
        let parsed = parse(default)
            .unwrap_or_else(|(message, _)| panic!("the default file's `{path}`: {message}"));
        Located { value: parsed, span: 0..0 }
    }

    fn or_report<T>(&mut self, path: &str, value: &Value, parsed: Result<T, Bad>) -> Option<T> {
        parsed
            .map_err(|(message, remedy)| {
                self.report(value.span(), "this value", format!("`{path}`: {message}"), &remedy);
            })
            .ok()
    }

    fn report(&mut self, span: Range<usize>, label: &'static str, message: String, remedy: &str) {
        self.problems.push(problem(&self.source, span, label, message, remedy));
    }

    fn refuse_unknown_keys(&mut self) {
        let (user, defaults) = (self.user, self.defaults);
        self.refuse_unknown_keys_of("", user, defaults);
    }

    /// Refuses the keys of a table that are not among these.
    fn refuse_others(&mut self, prefix: &str, table: &DeTable, known: &[&str]) {
        for key in table.keys().filter(|key| !known.contains(&key.get_ref().as_ref())) {
            self.refuse_key(prefix, key, known);
        }
    }

    fn refuse_key(&mut self, prefix: &str, key: &Spanned<DeString>, known: &[&str]) {
        let name = key.get_ref().as_ref();
        let remedy = unknown_key_remedy(name, known);
        self.report(key.span(), "this key", format!("unknown key `{prefix}{name}`"), &remedy);
    }

    fn refuse_unknown_keys_of(&mut self, prefix: &str, user: &DeTable, defaults: &DeTable) {
        for (key, value) in user {
            let name = key.get_ref().as_ref();
            let path = format!("{prefix}{name}");
            match (value.get_ref(), defaults.get(name).map(Spanned::get_ref)) {
                (DeValue::Table(user), Some(DeValue::Table(defaults))) => {
                    self.refuse_unknown_keys_of(&format!("{path}."), user, defaults);
                }
                (other, Some(DeValue::Table(_))) if !path.starts_with("lanes.") => {
                    let (message, remedy) = wrong_type("a table", other);
                    self.report(
                        value.span(),
                        "this value",
                        format!("`{path}`: {message}"),
                        &remedy,
                    );
                }
                (_, Some(_)) => {}
                (_, None) if optional_keys(prefix).contains(&name) => {}
                (_, None) => {
                    let known = defaults.keys().map(|key| key.get_ref().as_ref());
                    let known: Vec<&str> =
                        known.chain(optional_keys(prefix).iter().copied()).collect();
                    self.refuse_key(prefix, key, &known);
                }
            }
        }
    }
}

/// Whether a lane of routed mode becomes another in more than its mark: which packets the ports take from the
/// kernel, and what they need of room, is settled when they are opened.
fn changes_kind(before: Option<Lane>, after: Option<Lane>) -> bool {
    let is_mark = |lane| matches!(lane, None | Some(Lane::Mark(_)));
    before != after && !(is_mark(before) && is_mark(after))
}

/// Keys of a section that the default file shows in comments only.
fn optional_keys(prefix: &str) -> &'static [&'static str] {
    let sections = routed::OPTIONAL.iter().chain(&[("ports.", &PORT_KEYS as &[&str])]);
    let mut found = sections.filter(|(section, _)| *section == prefix);
    found.next().map_or(&[], |(_, keys)| keys)
}

/// The value at a dotted path.
fn find<'a>(table: &'a DeTable<'a>, path: &str) -> Option<&'a Value<'a>> {
    match path.split_once('.') {
        None => table.get(path),
        Some((section, rest)) => match table.get(section)?.get_ref() {
            DeValue::Table(table) => find(table, rest),
            _ => None,
        },
    }
}

fn unknown_key_remedy(name: &str, known: &[&str]) -> String {
    let nearest = known
        .iter()
        .map(|known| (strsim::jaro_winkler(name, known), known))
        .max_by(|(a, _), (b, _)| a.total_cmp(b));
    match nearest {
        Some((likeness, known)) if likeness > 0.75 => format!("did you mean `{known}`?"),
        _ => format!("the keys here are: {}", known.join(", ")),
    }
}

/// Shows problems on standard error, each with its file, line and column and its remedy.
pub fn show(problems: &[Problem]) {
    let handler =
        miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::unicode_nocolor());
    for problem in problems {
        let mut text = String::new();
        let rendered = handler.render_report(&mut text, problem);
        assert!(rendered.is_ok(), "writing to a string cannot fail");
        eprintln!("{text}");
    }
}

#[cfg(test)]
mod tests;
