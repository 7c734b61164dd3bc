use super::*;
use crate::kernel::bpf::testing::load;

const SENDERS: &str = r#"
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } ring SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY); } perf SEC(".maps");
__u32 number;
SEC("tc") int to_ring(struct __sk_buff *skb) {
  __u32 n = number++, size = 4 + (n & 3) * 4, words[4] = { n, n, n, n };
  return bpf_ringbuf_output(&ring, words, size, 0) != 0;
}
SEC("tc") int to_perf(struct __sk_buff *skb) {
  __u32 n = number++, size = 4 + (n & 3) * 4, words[4] = { n, n, n, n };
  return bpf_perf_event_output(skb, &perf, BPF_F_CURRENT_CPU, words, size) != 0;
}"#;

/// Sends in bursts and takes in batches of other sizes, around the buffer's end many times.
fn round_and_round(map: &str, program: &str, padding: bool) {
    let object = load(SENDERS);
    let mut records =
        Records::open(&object.maps[map], Some(4096).filter(|_| padding)).expect("opens");
    records.listen().expect("listens");
    let (mut batch, mut next, mut sent) = (Batch::default(), 0u32, 0);
    for round in 0..400 {
        let burst = 1 + round % 90;
        let ran = object.programs[program].test_run(&[0; 64], &[], burst).expect("runs");
        assert_eq!(ran.retval, 0, "there was room");
        sent += burst;
        while next < sent {
            batch.clear();
            records.take(&mut batch, 7);
            assert!(!batch.is_empty() && batch.len() <= 7);
            for record in batch.iter() {
                let size = 4 + (next % 4) as usize * 4;
                let padded = if padding { (size + 4).next_multiple_of(8) - 4 } else { size };
                assert_eq!(record.len(), padded, "record {next}");
                assert_eq!(record[..size], next.to_ne_bytes().repeat(size / 4)[..]);
                next += 1;
            }
        }
    }
    batch.clear();
    records.take(&mut batch, 7);
    assert!(batch.is_empty());
    assert!(records.fullest() > 0.3 && records.fullest() <= 1.0, "{}", records.fullest());
}

#[test]
fn a_ring_buffer_is_read_around_its_end() {
    round_and_round("ring", "to_ring", false);
}

#[test]
fn a_perf_buffer_is_read_around_its_end() {
    // One processor's buffer only: a test run does not move while it runs, and this thread is bound to one.
    let mut one = nix::sched::CpuSet::new();
    one.set(0).expect("processor 0");
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &one).expect("bound");
    round_and_round("perf", "to_perf", true);
}

#[test]
fn another_reader_keeps_its_places_when_the_first_goes() {
    let object = load(SENDERS);
    let first = Records::open(&object.maps["perf"], None).expect("opens");
    first.listen().expect("listens");
    let mut second = Records::open(&object.maps["perf"], None).expect("opens");
    second.listen().expect("listens");
    drop(first);
    assert_eq!(object.programs["to_perf"].test_run(&[0; 64], &[], 3).expect("runs").retval, 0);
    let mut batch = Batch::default();
    second.take(&mut batch, 10);
    assert_eq!(batch.len(), 3);
    drop(second);
    let ran = object.programs["to_perf"].test_run(&[0; 64], &[], 1).expect("runs");
    assert_ne!(ran.retval, 0, "nobody listens");
}
