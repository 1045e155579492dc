//! The configuration: a TOML file on top of `configs/default.toml`, checked as a whole.
//!
//! The default file is compiled in and read by the same code as the user's. It is the only source of defaults
//! and of the list of keys, so a key that is not in its manual does not exist. Whatever is wrong with a file
//! is found in one go, each [`Problem`] with its place and its remedy.

mod values;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use miette::{Diagnostic, NamedSource, SourceSpan};
use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::flow::classifier::{Capacity, Policy, Rule};
use crate::lane::Lanes;
use crate::lane::mark::Mark;
use crate::xdp::{Attach, CopyMode, Settings as XdpSettings};
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
    /// Where classes go.
    pub lanes: Lanes,
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
        let (one, two) = (&self.xdp, &other.xdp);
        let (has, wants) = (&self.capacity, &other.capacity);
        [
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
            ("control.socket", self.control_socket != other.control_socket),
            ("log.level", self.log_level != other.log_level),
        ]
        .into_iter()
        .filter_map(|(key, differs)| differs.then_some(key))
        .collect()
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
        self.value("mode", |value| one_of(value, &[("inline", ())]));
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
            lanes: Lanes { short: self.lane("lanes.short"), long: self.lane("lanes.long") },
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
                    &[("split", Policy::Split), ("ecmp", Policy::Ecmp), ("none", Policy::None)],
                )
            }),
            threshold_packets: self.number("classifier.threshold_packets", 1, u32::MAX.into()),
            idle_timeout_ns: self.value("classifier.idle_timeout", values::idle_timeout),
            restart_on_syn: self.value("classifier.restart_on_syn", values::boolean),
        }
    }

    /// A lane that the user names is the user's own: nothing is added to it from the defaults.
    fn lane(&mut self, path: &str) -> Mark {
        let dscp = format!("{path}.dscp");
        if let Some(lane) = find(self.user, path)
            && find(self.user, &dscp).is_none()
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
                (_, None) if prefix == "ports." && PORT_KEYS.contains(&name) => {}
                (_, None) => {
                    let mut known: Vec<&str> =
                        defaults.keys().map(|key| key.get_ref().as_ref()).collect();
                    if prefix == "ports." {
                        known.extend(PORT_KEYS);
                    }
                    let remedy = unknown_key_remedy(name, &known);
                    self.report(key.span(), "this key", format!("unknown key `{path}`"), &remedy);
                }
            }
        }
    }
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
mod tests {
    use super::*;

    const PORTS: &str = "[ports]\nlan = \"a\"\nwan = \"b\"\n";

    /// What is wrong with a file: its messages, each with its remedy and the text it points at.
    fn problems(text: &str) -> Vec<(String, String, String)> {
        match Config::parse("test.toml", text) {
            Ok(_) => Vec::new(),
            Err(ConfigError::Unreadable { .. }) => unreachable!("nothing was read from a file"),
            Err(ConfigError::Problems(problems)) => problems
                .into_iter()
                .map(|problem| {
                    let start = problem.span.offset();
                    let place = text[start..start + problem.span.len()].to_owned();
                    (problem.message, problem.remedy, place)
                })
                .collect(),
        }
    }

    #[track_caller]
    fn assert_refused(text: &str, message: &str, remedy: &str, place: &str) {
        let found = problems(text);
        let [(said, advised, pointed)] = &found[..] else {
            panic!("expected one problem in {text:?}, found {found:?}");
        };
        assert!(said.contains(message), "{said:?} does not say {message:?}");
        assert!(advised.contains(remedy), "{advised:?} does not advise {remedy:?}");
        assert_eq!(pointed, place);
    }

    #[test]
    fn the_default_file_means_what_it_says() {
        let config = Config::defaults();
        assert!(config.ports.is_none());
        assert_eq!(config.rule.policy, Policy::Split);
        assert_eq!(config.rule.threshold_packets, 40);
        assert_eq!(config.rule.idle_timeout_ns, 30_000_000_000);
        assert!(config.rule.restart_on_syn);
        assert_eq!(config.lanes.short.dscp(), 18);
        assert_eq!(config.lanes.long.dscp(), 10);
        assert_eq!(config.poll, Poll::Adaptive);
        assert_eq!(config.control_socket, Path::new("/run/lanesplit/control.sock"));
    }

    #[test]
    fn two_interfaces_are_enough() {
        let ports = Config::parse("test.toml", PORTS).unwrap().ports.unwrap();
        assert_eq!((ports.lan.value.as_str(), ports.wan.value.as_str()), ("a", "b"));
    }

    #[test]
    fn what_a_file_says_goes_before_the_default() {
        let text = "[classifier]\nthreshold_packets = 0x10\nidle_timeout = \"1min 500ms\"\npolicy = \"ecmp\"\n\
                    [lanes.short]\ndscp = 46\n[workers]\ncores = [3, 1]\npoll = \"busy\"";
        let config = Config::parse("test.toml", text).unwrap();
        assert_eq!(config.rule.threshold_packets, 16);
        assert_eq!(config.rule.idle_timeout_ns, 60_500_000_000);
        assert_eq!(config.rule.policy, Policy::Ecmp);
        assert_eq!(config.lanes.short.dscp(), 46);
        assert_eq!(config.lanes.long.dscp(), 10);
        assert_eq!(config.cores.value, [3, 1]);
        assert_eq!(config.poll, Poll::Busy);
    }

    #[test]
    fn every_mistake_is_named_with_its_place_and_remedy() {
        let rows = [
            (
                "[classifier]\ntreshold_packets = 4",
                "unknown key `classifier.treshold_packets`",
                "did you mean `threshold_packets`",
                "treshold_packets",
            ),
            ("[lane]\nx = 1", "unknown key `lane`", "did you mean `lanes`", "lane"),
            ("[lanes.middle]\ndscp = 1", "unknown key `lanes.middle`", "long, short", "middle"),
            ("[classifier]\nthreshold_packets = 0", "0 is out of range", "1 to 4294967295", "0"),
            ("[classifier]\nthreshold_packets = -3", "-3 is out of range", "1 to 4294967295", "-3"),
            (
                "[classifier]\nthreshold_packets = \"many\"",
                "found string",
                "whole number",
                "\"many\"",
            ),
            ("[classifier]\nidle_timeout = \"30\"", "time unit needed", "like \"30s\"", "\"30\""),
            ("[classifier]\nidle_timeout = \"0s\"", "out of range", "above 0", "\"0s\""),
            ("[classifier]\nidle_timeout = 30", "found integer", "like \"30s\"", "30"),
            ("[classifier]\nrestart_on_syn = 1", "found integer", "true or false", "1"),
            (
                "[classifier]\npolicy = \"fast\"",
                "none of its values",
                "\"split\", \"ecmp\", \"none\"",
                "\"fast\"",
            ),
            (
                "[lanes.long]",
                "the lane `lanes.long` has no mark",
                "dscp = \"AF21\"",
                "[lanes.long]",
            ),
            ("[lanes.long]\ndscp = \"AF44\"", "no such DSCP", "AF11 to AF43", "\"AF44\""),
            ("[lanes.long]\ndscp = 64", "64 is out of range", "0 to 63", "64"),
            ("lanes = 3", "found integer", "a table", "3"),
            ("[ports]\nlan = \"a\"\nwan = \"a\"", "both \"a\"", "two different ones", "\"a\""),
            ("[ports]\nlan = \"a\"", "only one of", "name the other", "\"a\""),
            (
                "[ports]\nlan = \"a\"\nwan = \"an interface's name\"",
                "1 to 15 characters",
                "ip link",
                "\"an interface's name\"",
            ),
            ("[ports]\nframe_bytes = 3000", "not a power of two", "2048 or 4096", "3000"),
            ("[ports]\nring_entries = 65536", "out of range", "64 to 32768", "65536"),
            ("[workers]\ncores = [1, 1]", "core 1 is named twice", "of its own", "[1, 1]"),
            ("[workers]\ncores = 2", "found integer", "[2, 3]", "2"),
            ("mode = \"routed\"", "\"routed\" is none of its values", "\"inline\"", "\"routed\""),
            ("[control]\nsocket = \"\"", "1 to 107 bytes", "shorter path", "\"\""),
        ];
        for (text, message, remedy, place) in rows {
            assert_refused(text, message, remedy, place);
        }
    }

    #[test]
    fn all_mistakes_are_found_at_once() {
        let text = "[classifier]\nthreshold_packets = 0\nbogus = 1\n[lanes.short]\n[workers]\npoll = \"lazy\"";
        assert_eq!(problems(text).len(), 4);
    }

    #[test]
    fn what_is_not_toml_is_refused_with_its_place() {
        let found = problems("[ports\nlan = \"a\"");
        assert!(!found.is_empty());
        assert!(found.iter().all(|(message, ..)| message.starts_with("not TOML")), "{found:?}");
    }

    #[test]
    fn every_name_of_the_dscp_registry_is_known() {
        let named = |name: &str| {
            let text = format!("[lanes.short]\ndscp = \"{name}\"");
            Config::parse("test.toml", &text).map(|config| config.lanes.short.dscp()).ok()
        };
        for (name, dscp) in [
            ("CS0", 0),
            ("LE", 1),
            ("CS1", 8),
            ("AF11", 10),
            ("AF12", 12),
            ("AF13", 14),
            ("CS2", 16),
            ("AF21", 18),
            ("AF22", 20),
            ("AF23", 22),
            ("CS3", 24),
            ("AF31", 26),
            ("AF32", 28),
            ("AF33", 30),
            ("CS4", 32),
            ("AF41", 34),
            ("AF42", 36),
            ("AF43", 38),
            ("CS5", 40),
            ("VA", 44),
            ("EF", 46),
            ("CS6", 48),
            ("CS7", 56),
        ] {
            assert_eq!(named(name), Some(dscp), "{name}");
        }
        for name in ["CS8", "AF01", "AF14", "AF51", "AF1", "AF111", "af11", "", "CS", "AFé"] {
            assert_eq!(named(name), None, "{name}");
        }
    }

    #[test]
    fn a_changed_fixed_key_is_named() {
        let before = Config::parse("test.toml", PORTS).unwrap();
        let with = |more: &str| Config::parse("test.toml", &format!("{PORTS}{more}")).unwrap();
        let free =
            "[classifier]\nthreshold_packets = 3\npolicy = \"none\"\n[lanes.short]\ndscp = 0";
        assert_eq!(before.differs_in_fixed_keys(&with(free)), [""; 0]);
        let fixed = with("ring_entries = 64\n[workers]\npoll = \"busy\"");
        assert_eq!(before.differs_in_fixed_keys(&fixed), ["ports.ring_entries", "workers.poll"]);
    }
}
