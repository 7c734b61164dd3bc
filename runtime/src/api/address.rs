//! Addresses, networks and hardware addresses as options and arguments.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use mlua::Value;

use super::option::{Converted, FromOption, ListItem, Options};
use crate::{Error, Result};

impl ListItem for IpNetwork {}
impl ListItem for IpAddr {}

impl FromOption for IpAddr {
    fn expects() -> String {
        "an IP address such as \"10.0.0.1\" or \"fd00::1\"".into()
    }
    fn from_option(value: Value) -> Converted<Self> {
        let Value::String(text) = value else { return Err(None) };
        let parsed = text.to_str().ok().and_then(|text| text.parse().ok());
        parsed.ok_or_else(|| Some(format!("\"{}\" is not an IP address", text.to_string_lossy())))
    }
    fn instead(value: &Value) -> Option<String> {
        let text = value.as_string()?.to_string_lossy();
        let (address, _) = text.split_once('/')?;
        address.parse::<IpAddr>().ok()?;
        Some(format!("leave the prefix length out: \"{address}\""))
    }
}

const CIDR: &str = "write it as \"10.0.0.1/24\" or \"fd00::1/64\"";

/// An address with its prefix length; a bare address counts as a host's.
impl FromOption for IpNetwork {
    fn expects() -> String {
        "an address with a prefix length such as \"10.0.0.1/24\" or \"fd00::1/64\"".into()
    }
    fn from_option(value: Value) -> Converted<Self> {
        let Value::String(text) = value else { return Err(None) };
        let text = text.to_string_lossy();
        parse_cidr(&text).map_err(Some)
    }
    fn instead(value: &Value) -> Option<String> {
        value.as_string().map(|_| CIDR.to_owned())
    }
}

/// Parses `"10.0.0.1/24"`, `"fd00::1/64"`, or a bare address.
pub fn parse_cidr(text: &str) -> std::result::Result<IpNetwork, String> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let address: IpAddr = address
        .parse()
        .map_err(|_| format!("\"{text}\" is not an address with a prefix length"))?;
    let bits: u8 = if address.is_ipv4() { 32 } else { 128 };
    let length = match length {
        None => bits,
        Some(length) => length
            .parse()
            .ok()
            .filter(|length| *length <= bits)
            .ok_or_else(|| format!("\"{text}\" has a prefix length that is not 0 to {bits}"))?,
    };
    IpNetwork::new(address, length).map_err(|e| e.to_string())
}

const NETWORK: &str = "write it as \"10.0.0.0/24\", \"fd00::/64\" or an address alone";

impl Options {
    /// A network: what a route, a rule or a policy matches. A bare address is a host's.
    ///
    /// # Errors
    /// EINVAL also for an address with bits behind its prefix, as `ip route` has it: it could be meant either way.
    pub fn network(&mut self, word: &'static str) -> Result<Option<IpNetwork>> {
        if let Value::String(text) = self.raw(word)?
            && let Ok(text) = text.to_str()
        {
            return self.parse_network(word, &text).map(Some);
        }
        // What is no text is refused by this.
        self.get::<String>(word).map(|_| None)
    }

    /// As [`Options::network`], from text that the caller has looked at.
    pub fn parse_network(&self, word: &str, text: &str) -> Result<IpNetwork> {
        let network = parse_cidr(text)
            .map_err(|problem| self.bad(format!("{word} {problem}")).hint(NETWORK))?;
        if network.ip() == network.network() {
            return Ok(network);
        }
        Err(host_bits(
            self.bad(format!(
                "{word} \"{text}\" is not a network: it has bits set behind its prefix"
            )),
            network,
        ))
    }
}

fn host_bits(error: Error, network: IpNetwork) -> Error {
    let (address, length) = (network.ip(), network.prefix());
    error.hint(format!(
        "write \"{}/{length}\" for the network, \"{address}\" for the address",
        network.network()
    ))
}

/// A hardware address, `"02:00:00:00:00:01"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl FromOption for Mac {
    fn expects() -> String {
        "a MAC address such as \"02:00:00:00:00:01\"".into()
    }
    fn from_option(value: Value) -> Converted<Self> {
        let Value::String(text) = value else { return Err(None) };
        let text = text.to_string_lossy();
        let bytes: Option<Vec<u8>> = text
            .split(':')
            .map(|part| u8::from_str_radix(part, 16).ok().filter(|_| part.len() <= 2))
            .collect();
        match bytes.and_then(|bytes| <[u8; 6]>::try_from(bytes).ok()) {
            Some(bytes) => Ok(Mac(bytes)),
            None => Err(Some(format!("\"{text}\" is not a MAC address"))),
        }
    }
}
