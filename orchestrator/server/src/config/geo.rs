//! A database of addresses in MaxMind's format, as country and ASN databases come.
//!
//! It is read whole at the start. What it lacks, or has in another form, is unknown: a stale or partial
//! database must not keep peers out.

use std::net::IpAddr;
use std::path::Path;

use espalier_orchestrator_core::region_from;
use maxminddb::{MaxMindDbError, Reader, path};

/// A database of addresses.
pub(crate) struct GeoDatabase(Reader<Vec<u8>>);

impl core::fmt::Debug for GeoDatabase {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let kind = &self.0.metadata().database_type;
        write!(formatter, "GeoDatabase({kind})")
    }
}

impl GeoDatabase {
    /// Reads a database.
    ///
    /// # Errors
    /// When the file cannot be read, or is none.
    pub(crate) fn open(path: &Path) -> Result<Self, MaxMindDbError> {
        Reader::open_readfile(path).map(Self)
    }

    /// Returns the region of the address's country; 0: unknown.
    pub(crate) fn country(&self, address: IpAddr) -> u16 {
        let found = self.0.lookup(address);
        let code = found.and_then(|it| it.decode_path::<&str>(&path!["country", "iso_code"]));
        let code = code.ok().flatten().filter(|code| code.len() == 2);
        code.and_then(region_from).unwrap_or(0)
    }

    /// Returns the number of the autonomous system that announces the address; 0: unknown.
    pub(crate) fn system(&self, address: IpAddr) -> u32 {
        let found = self.0.lookup(address);
        let number = found.and_then(|it| it.decode_path(&path!["autonomous_system_number"]));
        number.ok().flatten().unwrap_or(0)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use ipnet::IpNet;

    use super::*;

    /// A value of a record.
    pub(crate) enum Value {
        Text(&'static str),
        Number(u32),
        Short(u16),
        Long(u64),
        /// An array of none.
        Nothing,
        Map(Vec<(&'static str, Value)>),
    }

    impl Value {
        fn encode(&self, out: &mut Vec<u8>) {
            let control = |kind: u8, length: usize| kind << 5 | u8::try_from(length).unwrap();
            match self {
                Self::Text(text) => {
                    assert!(text.len() < 29);
                    out.push(control(2, text.len()));
                    out.extend_from_slice(text.as_bytes());
                }
                Self::Number(number) => {
                    out.push(control(6, 4));
                    out.extend_from_slice(&number.to_be_bytes());
                }
                Self::Short(number) => {
                    out.push(control(5, 2));
                    out.extend_from_slice(&number.to_be_bytes());
                }
                // Types above 7 are said in a second byte, less 7.
                Self::Long(number) => {
                    out.extend_from_slice(&[control(0, 8), 2]);
                    out.extend_from_slice(&number.to_be_bytes());
                }
                Self::Nothing => out.extend_from_slice(&[control(0, 0), 4]),
                Self::Map(entries) => {
                    out.push(control(7, entries.len()));
                    for (key, value) in entries {
                        Self::Text(key).encode(out);
                        value.encode(out);
                    }
                }
            }
        }
    }

    /// The bytes of a database that has one record, for one IPv4 subnet.
    pub(crate) fn bytes(subnet: &str, record: &Value) -> Vec<u8> {
        let IpNet::V4(subnet) = subnet.parse().unwrap() else {
            panic!("{subnet} is no IPv4 subnet");
        };
        let depth = u32::from(subnet.prefix_len());
        let bits = u32::from(subnet.network());
        // One node for each bit of the prefix: one way goes on, the other finds nothing.
        let (nothing, found) = (depth, depth + 16);
        let mut out = Vec::new();
        for level in 0..depth {
            let onwards = if level + 1 == depth { found } else { level + 1 };
            let one = bits >> (31 - level) & 1 == 1;
            let (left, right) = if one {
                (nothing, onwards)
            } else {
                (onwards, nothing)
            };
            for way in [left, right] {
                out.extend_from_slice(&way.to_be_bytes()[1..]);
            }
        }
        out.extend_from_slice(&[0; 16]);
        record.encode(&mut out);
        out.extend_from_slice(b"\xab\xcd\xefMaxMind.com");
        metadata(depth).encode(&mut out);
        out
    }

    fn metadata(nodes: u32) -> Value {
        Value::Map(vec![
            ("node_count", Value::Number(nodes)),
            ("record_size", Value::Short(24)),
            ("ip_version", Value::Short(4)),
            ("database_type", Value::Text("Test")),
            ("binary_format_major_version", Value::Short(2)),
            ("binary_format_minor_version", Value::Short(0)),
            ("build_epoch", Value::Long(1)),
            ("description", Value::Map(Vec::new())),
            ("languages", Value::Nothing),
        ])
    }

    pub(crate) fn database(subnet: &str, record: &Value) -> GeoDatabase {
        GeoDatabase(Reader::from_source(bytes(subnet, record)).unwrap())
    }

    #[test]
    fn what_is_not_there_or_of_another_form_is_unknown() {
        let at = |text: &str| text.parse().unwrap();
        let country = |code| Value::Map(vec![("country", Value::Map(vec![("iso_code", code)]))]);
        let good = database("192.0.2.0/24", &country(Value::Text("de")));
        assert_eq!(good.country(at("192.0.2.7")), 83);
        assert_eq!(good.country(at("192.0.3.7")), 0);
        assert_eq!(good.country(at("2001:db8::1")), 0);
        assert_eq!(good.system(at("192.0.2.7")), 0);
        for odd in [Value::Text("1000"), Value::Text(""), Value::Number(7)] {
            let odd = database("192.0.2.0/24", &country(odd));
            assert_eq!(odd.country(at("192.0.2.7")), 0);
        }
        let number = Value::Map(vec![("autonomous_system_number", Value::Number(9))]);
        let systems = database("192.0.2.0/25", &number);
        assert_eq!(systems.system(at("192.0.2.127")), 9);
        assert_eq!(systems.system(at("192.0.2.128")), 0);
    }

    #[test]
    fn what_is_no_database_is_refused_and_a_damaged_one_knows_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.mmdb");
        assert!(GeoDatabase::open(&file).is_err());
        std::fs::write(&file, b"not a database").unwrap();
        assert!(GeoDatabase::open(&file).is_err());
        let number = Value::Map(vec![("autonomous_system_number", Value::Number(9))]);
        let whole = bytes("192.0.2.0/24", &number);
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0xff;
            if let Ok(reader) = Reader::from_source(damaged) {
                GeoDatabase(reader).system("192.0.2.7".parse().unwrap());
            }
        }
    }
}
