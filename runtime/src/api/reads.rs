//! What a function reads of its first argument, by its bytecode: one that only reads fields of known names cannot keep the
//! argument, so it can be handed the same table again and again, with these fields and no others.
//!
//! The format is Lua 5.4's (ldump.c, lopcodes.h), which the binary carries itself. Whatever is not understood counts as kept.

/// The names of the fields that a function, as `string.dump` writes it, reads of its first argument, in the order of their
/// first use. None when it may do anything else with it: keep it, hand it on, change it, go through it.
pub fn fields_read(dump: &[u8]) -> Option<Vec<String>> {
    let mut dump = Dump(dump);
    dump.header()?;
    let function = dump.function()?;
    let mut names: Vec<String> = Vec::new();
    if function.is_vararg {
        return None;
    }
    // Without parameters there is nothing to keep.
    if function.parameters == 0 {
        return Some(names);
    }
    if function.captured.contains(&ARGUMENT) {
        return None;
    }
    for instruction in &function.code {
        if instruction.opcode() == GETFIELD
            && instruction.b() == ARGUMENT
            && instruction.a() != ARGUMENT
        {
            let name = function.constants.get(usize::from(instruction.c()))?.as_ref()?;
            if !names.contains(name) {
                names.push(name.clone());
            }
        } else if instruction.uses(ARGUMENT)? {
            return None;
        }
    }
    Some(names)
}

/// The register of the first argument. Nothing else is ever there unless it is written to.
const ARGUMENT: u8 = 0;
const GETFIELD: u8 = 14;

/// Which operands of an instruction are registers. Those that use a range begin at A.
enum Registers {
    None,
    /// A.
    One,
    /// A and B.
    Two,
    /// A, B and C.
    Three,
    /// As the others, but C is a constant when the bit `k` is set.
    OrConstant {
        a: bool,
        b: bool,
    },
}

struct Instruction(u32);

impl Instruction {
    fn opcode(&self) -> u8 {
        self.0 as u8 & 0x7f
    }
    fn a(&self) -> u8 {
        (self.0 >> 7) as u8
    }
    fn k(&self) -> bool {
        self.0 >> 15 & 1 != 0
    }
    fn b(&self) -> u8 {
        (self.0 >> 16) as u8
    }
    fn c(&self) -> u8 {
        (self.0 >> 24) as u8
    }

    /// Whether it reads or writes the register; none for an instruction that is not known.
    fn uses(&self, register: u8) -> Option<bool> {
        let (a, b, c) = (self.a() == register, self.b() == register, self.c() == register);
        Some(match self.registers()? {
            Registers::None => false,
            Registers::One => a,
            Registers::Two => a || b,
            Registers::Three => a || b || c,
            Registers::OrConstant { a: has_a, b: has_b } => {
                has_a && a || has_b && b || !self.k() && c
            }
        })
    }

    fn registers(&self) -> Option<Registers> {
        Some(match self.opcode() {
            // MOVE, GETI, GETFIELD, ADDI, those with a constant from ADDK to BXORK, SHRI, SHLI, MMBIN, UNM, BNOT, NOT, LEN,
            // EQ, LT, LE, TESTSET.
            0 | 13 | 14 | 21..=33 | 46 | 49..=52 | 57..=59 | 67 => Registers::Two,
            // GETTABLE, ADD to SHR.
            12 | 34..=45 => Registers::Three,
            // LOADI to SETUPVAL, GETTABUP, NEWTABLE, MMBINI, MMBINK, CONCAT, CLOSE, TBC, EQK to GEI, CALL, TAILCALL, RETURN,
            // RETURN1, loops, SETLIST, CLOSURE (what it captures is known from the function), VARARG.
            1..=11 | 19 | 47 | 48 | 53..=55 | 60..=65 | 68..=70 | 72..=80 => Registers::One,
            // SETTABUP.
            15 => Registers::OrConstant { a: false, b: false },
            // SETTABLE, SELF.
            16 | 20 => Registers::OrConstant { a: true, b: true },
            // SETI, SETFIELD.
            17 | 18 => Registers::OrConstant { a: true, b: false },
            // JMP; TEST, which only asks whether there is a value; RETURN0, VARARGPREP, EXTRAARG.
            56 | 66 | 71 | 81 | 82 => Registers::None,
            _ => return None,
        })
    }
}

struct Function {
    parameters: u8,
    is_vararg: bool,
    code: Vec<Instruction>,
    /// Those that are strings.
    constants: Vec<Option<String>>,
    /// Registers of this function that functions in it see.
    captured: Vec<u8>,
    /// Registers of the function around it that it sees.
    captures: Vec<u8>,
}

/// What is left of a dump.
struct Dump<'a>(&'a [u8]);

impl<'a> Dump<'a> {
    /// Lua's signature, version 5.4 in its official format, numbers as this machine has them.
    fn header(&mut self) -> Option<()> {
        const BEGIN: &[u8] = b"\x1bLua\x54\x00\x19\x93\r\n\x1a\n\x04\x08\x08";
        (self.bytes(BEGIN.len())? == BEGIN).then_some(())?;
        (self.bytes(8)? == 0x5678_u64.to_ne_bytes()).then_some(())?;
        (self.bytes(8)? == 370.5_f64.to_ne_bytes()).then_some(())?;
        self.byte().map(drop)
    }

    fn function(&mut self) -> Option<Function> {
        let _source = self.string()?;
        let _lines = (self.number()?, self.number()?);
        let (parameters, is_vararg, _stack) = (self.byte()?, self.byte()? != 0, self.byte()?);
        let code = self.many(|dump| {
            let word = dump.bytes(4)?.try_into().ok()?;
            Some(Instruction(u32::from_ne_bytes(word)))
        })?;
        let constants = self.many(Dump::constant)?;
        let captures = self.many(|dump| {
            let (in_stack, index, _kind) = (dump.byte()?, dump.byte()?, dump.byte()?);
            Some((in_stack != 0).then_some(index))
        })?;
        let functions = self.many(Dump::function)?;
        self.debug_information()?;
        Some(Function {
            parameters,
            is_vararg,
            code,
            constants,
            captured: functions.into_iter().flat_map(|inner| inner.captures).collect(),
            captures: captures.into_iter().flatten().collect(),
        })
    }

    fn constant(&mut self) -> Option<Option<String>> {
        match self.byte()? {
            // nil, false, true
            0x00 | 0x01 | 0x11 => Some(None),
            // An integer, a float.
            0x03 | 0x13 => self.bytes(8).map(|_| None),
            // A short string, a long one.
            0x04 | 0x14 => {
                let text = self.string()?;
                Some(std::str::from_utf8(text).ok().map(str::to_owned))
            }
            _ => None,
        }
    }

    /// Of a stripped function there is none.
    fn debug_information(&mut self) -> Option<()> {
        (0..4).try_for_each(|_| (self.number()? == 0).then_some(()))
    }

    fn many<T>(&mut self, mut one: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        (0..self.number()?).map(|_| one(self)).collect()
    }

    /// Its length, counted from 1, and its bytes; 0 for one that is not there.
    fn string(&mut self) -> Option<&'a [u8]> {
        match self.number()? {
            0 => Some(&[]),
            length => self.bytes(length - 1),
        }
    }

    /// Seven bits a byte, the most significant first; the last byte has its highest bit set.
    fn number(&mut self) -> Option<usize> {
        let mut number: usize = 0;
        loop {
            let byte = self.byte()?;
            number = number.checked_mul(128)? | usize::from(byte & 0x7f);
            if byte & 0x80 != 0 {
                return Some(number);
            }
        }
    }

    fn byte(&mut self) -> Option<u8> {
        self.bytes(1).map(|bytes| bytes[0])
    }

    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read of the first argument of a function of this source.
    fn read(source: &str) -> Option<Vec<String>> {
        let lua = mlua::Lua::new();
        let function: mlua::Function = lua.load(source).eval().expect("it compiles");
        fields_read(&function.dump(true))
    }

    #[test]
    fn fields_that_are_only_read_are_known() {
        let reads: [(&str, &[&str]); 10] = [
            ("function(e) n = e.bytes end", &["bytes"]),
            ("function() n = (n or 0) + 1 end", &[]),
            ("function(e) n = (n or 0) + 1 end", &[]),
            ("function(e) print(e.source, e.bytes, e.source) end", &["source", "bytes"]),
            ("function(e, rest) local s = e.s; if s == 'x' then t[s] = rest end end", &["s"]),
            ("function(e) t[e.a] = (t[e.a] or 0) + e.b.c end", &["a", "b"]),
            ("function(e) for i = 1, e.n do f(i, 0) end return e.m end", &["n", "m"]),
            ("function(e) if e and e.a > 1 then error('no ' .. e.b) end end", &["a", "b"]),
            ("function(e) local a = e.a; return function() return a end end", &["a"]),
            (
                "function(e) local a <close> = nil; for k, v in pairs(e.t) do t[k] = v end end",
                &["t"],
            ),
        ];
        for (source, names) in reads {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(read(&format!("return {source}")), Some(names), "{source}");
        }
    }

    #[test]
    fn whatever_else_is_done_with_it_may_keep_it() {
        for source in [
            "function(e) last = e end",
            "function(e) t.last = e end",
            "function(e) t[e] = 1 end",
            "function(e) t[1] = e end",
            "function(e) t = { e } end",
            "function(e) t = { last = e } end",
            "function(e) f(e) end",
            "function(e) f(e.a, e) end",
            "function(e) return e end",
            "function(e) return f(e) end",
            "function(e) return e.a, e end",
            "function(e) e.a = 1 end",
            "function(e) e[1] = 1 end",
            "function(e) e[k] = 1 end",
            "function(e) e = e.a; f(e) end",
            "function(e) e = { a = 1 }; f(e.a) end",
            "function(e) local x = e; f(x) end",
            "function(e) local x = e or 1; f(x) end",
            "function(e) local x = k and e; f(x) end",
            "function(e) return function() return e.a end end",
            "function(e) return function() return function() return e.a end end end",
            "function(e) f(e[1]) end",
            "function(e) f(e[k]) end",
            "function(e) f(k[e]) end",
            "function(e) f(#e) end",
            "function(e) f(-e) end",
            "function(e) f(e .. 'x') end",
            "function(e) f(e + 1) end",
            "function(e) f(1 + e) end",
            "function(e) f(k < e) end",
            "function(e) f(e == k) end",
            "function(e) f(e == 1) end",
            "function(e) e:f() end",
            "function(e) k:f(e) end",
            "function(e) for k, v in pairs(e) do f(k, v) end end",
            "function(e) for k, v in next, e do f(k, v) end end",
            "function(e) for i = e, 1 do f(i) end end",
            "function(e) local x <close> = e end",
            "function(...) f(...) end",
            "function(e, ...) f(e.a, ...) end",
            "function(e) goto on; ::on:: coroutine.yield(e) end",
        ] {
            assert_eq!(read(&format!("return {source}")), None, "{source}");
        }
        assert_eq!(read("return print"), None);
    }

    #[test]
    fn a_dump_that_is_damaged_is_not_understood() {
        let lua = mlua::Lua::new();
        let source = "return function(e) t[e.a] = function() return e.b .. 1.5 .. 7 end end";
        let function: mlua::Function = lua.load(source).eval().expect("it compiles");
        let dump = function.dump(true);
        for end in 0..dump.len() {
            assert_eq!(fields_read(&dump[..end]), None);
        }
        assert_eq!(fields_read(&function.dump(false)), None, "not stripped");
    }
}
