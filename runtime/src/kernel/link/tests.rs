//! Every kind of link on real namespaces.

use super::*;
use crate::kernel::netns::named;

/// A namespace that is gone after the test, however it ends.
pub struct Scratch(pub named::Netns, pub Netlink);

impl Scratch {
    pub fn new(what: &str) -> Self {
        let name = format!("cnft-{what}-{:x}", random());
        let (netns, netlink) = named::create(&name).unwrap();
        Scratch(netns, netlink)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = self.0.delete();
    }
}

fn kind(name: &str) -> &'static Kind {
    kinds::find(name).unwrap()
}

fn text(word: &str) -> Value {
    Value::Text(word.to_owned())
}

#[test]
fn veth_across_namespaces() {
    let (a, b) = (Scratch::new("va"), Scratch::new("vb"));
    let mut link = NewLink::new(&a.1, kind("veth"), End::named("left"));
    link.end.addresses = vec!["10.1.0.1/24".parse().unwrap(), "fd00:1::1/64".parse().unwrap()];
    link.end.mtu = Some(1400);
    link.end.mac = Some([2, 0, 0, 0, 0, 1]);
    link.end.alias = Some("an alias".into());
    let mut peer = End::named("right");
    peer.addresses = vec!["10.1.0.2/24".parse().unwrap()];
    link.peer = Some((&b.1, peer));
    let made = create(&link).unwrap();
    let left = info(&a.1, made.index).unwrap();
    assert_eq!((left.name.as_str(), left.kind.as_str(), left.mtu), ("left", "veth", 1400));
    assert_eq!(left.mac.as_deref(), Some("02:00:00:00:00:01"));
    assert_eq!(left.alias.as_deref(), Some("an alias"));
    assert!(left.up && left.carrier && left.running, "{left:?}");
    assert_eq!(left.link, made.peer_index);
    assert_ne!(made.peer_index, Some(made.index));
    let right = info_by_name(&b.1, "right").unwrap();
    assert_eq!((right.index, right.up), (made.peer_index.unwrap(), true));
    let addresses = address::list(&a.1, Some(made.index)).unwrap();
    let v6 = addresses.iter().find(|x| x.address == "fd00:1::1/64".parse().unwrap()).unwrap();
    assert!(!v6.tentative);
    let error = create(&link).unwrap_err();
    assert!(error.is("EEXIST"), "{error}");
    assert!(error.to_string().contains(&a.0.name), "{error}");
    println!("{error}");
}
