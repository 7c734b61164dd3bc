//! A load balancer through reloads: connections stay where they are, new ones follow the new script, a load that fails
//! moves nothing.

mod room;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use room::*;

const SERVICE: &str = "
local client, gate = cnf.netns.new('PREFIXc'), cnf.netns.new('PREFIXg')
local _, front = cnf.link.veth { name = 'eth0', netns = client, address = '10.0.0.2/24',
  peer = { name = 'front', netns = gate, address = '10.0.0.1/24' } }
client:route { dst = 'default', via = '10.0.0.1' }
gate:sysctl('net.ipv4.ip_forward', 1)
for i = 1, 2 do
  local ns = cnf.netns.new('PREFIXb' .. i)
  cnf.link.veth { name = 'eth0', netns = ns, address = ('10.1.%d.2/24'):format(i),
    peer = { name = 'b' .. i, netns = gate, address = ('10.1.%d.1/24'):format(i) } }
  ns:route { dst = 'default', via = ('10.1.%d.1'):format(i) }
end
cnf.lb.service { name = 'web', vip = '192.0.2.1:80', attach = { front }, backends = { BACKENDS } }
";

fn service(backends: &str) -> String {
    SERVICE.replace("BACKENDS", backends)
}

/// A program in a namespace of the room; it ends with the test.
struct Program(Child);

impl Program {
    fn start(room: &Room, netns: &str, words: &[&str]) -> Program {
        let netns = format!("{}{netns}", room.prefix);
        let mut command = Command::new("timeout");
        command.args([BOUND, "ip", "netns", "exec", &netns]).args(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        Program(command.spawn().expect("timeout and ip are there"))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(self.0.id() as i32),
            nix::sys::signal::Signal::SIGTERM,
        );
        let _ = self.0.wait();
    }
}

/// Serves one connection at port 9000, sending back what it gets.
fn serve(room: &Room, netns: &str) -> Program {
    let server =
        Program::start(room, netns, &["busybox", "nc", "-l", "-p", "9000", "-e", "/bin/cat"]);
    let name = format!("{}{netns}", room.prefix);
    eventually(|| {
        let words = ["netns", "exec", &name, "ss", "--no-header", "--listening", "--tcp", "-n"];
        let output = Command::new("ip").args(words).output().expect("ip is there");
        String::from_utf8_lossy(&output.stdout).contains(":9000 ")
    });
    server
}

/// A connection to the service.
struct Client {
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    _program: Program,
}

impl Client {
    fn connect(room: &Room) -> Client {
        let script = "exec 3<>/dev/tcp/192.0.2.1/80; \
            while read -r line; do echo \"$line\" >&3; read -r -t 5 -u 3 reply; echo \"$reply\"; done";
        let mut program = Program::start(room, "c", &["bash", "-c", script]);
        let to = program.0.stdin.take().expect("piped");
        let from = BufReader::new(program.0.stdout.take().expect("piped"));
        Client { to, from, _program: program }
    }

    /// Sends a line and gets it back.
    #[track_caller]
    fn says(&mut self, word: &str) {
        writeln!(self.to, "{word}").expect("the client runs");
        let mut reply = String::new();
        self.from.read_line(&mut reply).expect("it is text");
        assert_eq!(reply.trim_end(), word);
    }
}

#[test]
fn connections_live_through_reloads() {
    let room = Room::new();
    room.up("lb", &service("'10.1.1.2:9000'"));
    let (_one, _two) = (serve(&room, "b1"), serve(&room, "b2"));
    let mut first = Client::connect(&room);
    first.says("before");
    room.reload("lb", &service("'10.1.2.2:9000'")).expect(0, "reload 2: ");
    first.says("its backend is no longer named");
    let mut second = Client::connect(&room);
    second.says("the new one takes this");
    // The same again changes nothing.
    room.run(&["reload", "lb"]).expect(0, "reload 3: kept ");
    first.says("still there");
    second.says("and this");
    room.reload("lb", &(service("") + "error('no')")).expect(1, "reload(lb): no");
    first.says("a load that failed");
    second.says("moves nothing");
    let _three = serve(&room, "b2");
    Client::connect(&room).says("and leaves the backends");
}
