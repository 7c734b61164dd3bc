---@meta cnf.packet

--- Packets byte by byte: frames put together from tables of their headers, with lengths and checksums, and taken apart
--- again in the same words. For `p:test_run`, and for reading what a program or a capture gives.
---@class cnf.packet
local packet = {}

--- An Ethernet header. `type` follows from what stands above; without anything above it is 0x88b5 (experimental).
---@class cnf.EthHeader
---@field src? string MAC address, "02:00:00:00:00:01" by default.
---@field dst? string MAC address, "02:00:00:00:00:02" by default.
---@field type? integer EtherType.

--- A VLAN tag.
---@class cnf.VlanTag
---@field id integer 0 to 4095.
---@field priority? integer 0 to 7.
---@field dei? boolean Drop eligible.
---@field type? "802.1q"|"802.1ad" What announces it.
---@field inner? cnf.VlanTag|integer A second tag.

--- An IPv4 header, or an IPv6 one when the addresses are IPv6. Fragments: `offset` in bytes, `mf` when more follow.
---@class cnf.IpHeader
---@field src string
---@field dst string
---@field ttl? integer 64 by default; the hop limit of IPv6.
---@field tos? integer DSCP and ECN; the traffic class of IPv6.
---@field proto? string|integer What follows when no udp, tcp or icmp does; 253 (experimental) by default.
---@field id? integer Identification.
---@field df? boolean Do not fragment.
---@field mf? boolean More fragments follow.
---@field offset? integer Bytes before this fragment, a multiple of 8.
---@field options? string Bytes, 40 at most, in fours.
---@field checksum? integer A wrong one, for trying what happens; the right one by default.
---@field length? integer Read only: the total length the header states.
---@field checksum_ok? boolean Read only.

--- An IPv6 header.
---@class cnf.Ip6Header
---@field src string
---@field dst string
---@field hop_limit? integer 64 by default.
---@field tclass? integer Traffic class.
---@field flow_label? integer 20 bits.
---@field proto? string|integer The next header, as `proto` of IPv4.
---@field length? integer Read only: bytes after the header.
---@field fragment? {id: integer, offset: integer, mf: boolean} Read only.

---@class cnf.ArpHeader
---@field op? string|integer "request" (default) or "reply"; when read, a number for any other.
---@field src string IPv4 address of the sender.
---@field dst string IPv4 address that is asked for.
---@field src_mac? string That of the Ethernet header by default.
---@field dst_mac? string None in requests, that of the Ethernet header in replies.

---@class cnf.UdpHeader
---@field sport? integer 49152 by default.
---@field dport? integer 9 by default.
---@field checksum? integer 0: none; another: a wrong one. The right one by default.
---@field length? integer Read only.
---@field checksum_ok? boolean Read only; nil when there is none, or the packet is cut off.

--- Options of a TCP header, laid out as Linux does. Read in the same words; where a sender had them in another order, or there
--- are some without a word, `bytes` is what it sent.
---@class cnf.TcpOptions
---@field mss? integer Bytes of a segment at most.
---@field wscale? integer By how many bits windows are shifted.
---@field sack? true|integer[][] `true`: permitted; one to four blocks {from, to} of sequence numbers: what has arrived.
---@field timestamps? {value: integer, echo?: integer} The sender's clock and the one it answers, 0 by default.
---@field bytes? string 40 at most; sent as they are, filled up to fours. Other words beside them must say the same.

---@class cnf.TcpHeader
---@field sport? integer 49152 by default.
---@field dport? integer 9 by default.
---@field seq? integer
---@field ack? integer
---@field flags? string|string[]|table<string, boolean> "syn", "syn,ack", {"syn", "ack"} or {syn = true}, in small letters or capitals; a SYN by default. Read as the last: fin, syn, rst, psh, ack, urg, ece, cwr, ns.
---@field window? integer 65535 by default.
---@field urgent? integer
---@field options? cnf.TcpOptions|string A string is bytes, 40 at most; filled up to fours. Read as bytes when there is a word for none.
---@field checksum? integer A wrong one; the right one by default.
---@field checksum_ok? boolean Read only; nil when the packet is cut off.

--- ICMP over `ip`, ICMPv6 over `ip6`.
---@class cnf.IcmpHeader
---@field type? string|integer "echo-request" (default), "echo-reply", "destination-unreachable", "time-exceeded", "packet-too-big", "neighbour-solicitation" ..., or a number; numbers are read where there is no name.
---@field code? integer
---@field id? integer Of echoes.
---@field seq? integer Of echoes.
---@field mtu? integer Of "destination-unreachable" code 4, and of ICMPv6's "packet-too-big".
---@field checksum? integer A wrong one; the right one by default.
---@field checksum_ok? boolean Read only; nil when the packet is cut off.

--- What a packet is made of, outermost first.
---@class cnf.Packet
---@field eth? cnf.EthHeader|false `false`: none, for links without one (tun, wireguard).
---@field vlan? integer|cnf.VlanTag
---@field ip? cnf.IpHeader
---@field ip6? cnf.Ip6Header
---@field arp? cnf.ArpHeader
---@field udp? cnf.UdpHeader
---@field tcp? cnf.TcpHeader
---@field icmp? cnf.IcmpHeader
---@field payload? string Bytes behind the last header.
---@field length? integer Read only: bytes in all.
---@field problem? string Read only: why a header could not be read; what was not read is payload.

--- A packet as bytes: `packet.build{ip = {src = "10.0.0.1", dst = "10.0.0.2"}, udp = {dport = 53}, payload = "x"}`.
---
--- Raises EINVAL for a header without the one it needs below it, two of one layer, an unknown word or a value out of
--- range; EMSGSIZE for a payload that the length fields cannot say.
---
--- ```lua
--- local frame = packet.build { eth = {}, ip = { src = "10.0.0.1", dst = "10.0.0.2" }, udp = { dport = 53 }, payload = "hi" }
--- print(packet.decode(frame).udp.dport)
--- ```
---@param headers cnf.Packet
---@return string bytes
function packet.build(headers) end

--- The headers of a packet: every one that can be read, in the words that `packet.build` takes. A packet that is cut off
--- or malformed is read as far as it goes, and `problem` says where it stops; options that `build` does not take
--- (IPv6 extension headers, IGMP) are skipped or shown in part.
---
--- Raises EINVAL for bytes that do not hold the first header.
---@param bytes string
---@param options? {first: "eth"|"ip"} What the bytes start with; "eth" by default.
---@return cnf.Packet
function packet.decode(bytes, options) end

return packet
