//! The pickles that `torch.save` writes, read by a machine that knows tensors and containers only.
//!
//! A pickle is a program, and Python's own reader runs whatever function it names. This one calls
//! nothing: the few names that weights need stand for values of its own, and any other name or
//! instruction ends the reading with an error. Containers are shared and never copied, so that a small
//! file cannot unfold into a large value; nothing recurses.

use std::collections::HashMap;

use safetensors::Dtype;

/// A value; containers are indices into [`Machine`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    Text(&'a str),
    /// A list, a tuple or a set.
    Sequence(usize),
    Dict(usize),
    Storage(usize),
    Tensor(usize),
    Function(Function),
    /// What no weights depend on: a float, bytes, a device.
    Other,
}

/// The names that are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    OrderedDict,
    /// A set, a size: what it is called with.
    Collection,
    RebuildTensor,
    RebuildParameter,
    /// A class of storages.
    Storage(Dtype),
    /// A device, a type of elements.
    Plain,
}

/// Bytes that tensors look at, which lie outside of the pickle.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Storage<'a> {
    pub key: &'a str,
    pub dtype: Dtype,
    pub num_elements: usize,
}

/// A tensor as a view of a storage; nothing is known yet of whether it is within it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct View {
    /// Index of the storage.
    pub storage: usize,
    /// In elements.
    pub offset: usize,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
}

/// Values that a pickle may make. A whole training state of BLIP-large makes about 50,000.
const MOST_VALUES: usize = 1 << 19;

/// More than any tensor has.
pub(super) const MOST_DIMENSIONS: usize = 16;

/// What goes wrong, without the file.
type Problem = String;

/// Reads one pickle at a time from bytes; what they made stays here.
#[derive(Default)]
pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Value<'a>>,
    marks: Vec<usize>,
    memo: HashMap<usize, Value<'a>>,
    num_values: usize,
    pub sequences: Vec<Vec<Value<'a>>>,
    /// Entries whose key is text; others belong to no weights.
    pub dicts: Vec<Vec<(&'a str, Value<'a>)>>,
    pub storages: Vec<Storage<'a>>,
    pub tensors: Vec<View>,
}

impl<'a> Machine<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, ..Self::default() }
    }

    /// How many bytes have been read.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// Reads a pickle to its end.
    pub(super) fn run(&mut self) -> Result<Value<'a>, Problem> {
        self.stack.clear();
        self.marks.clear();
        self.memo.clear();
        loop {
            let at = self.at;
            let opcode = self.byte()?;
            if opcode == b'.' {
                return self.pop();
            }
            self.step(opcode)
                .map_err(|problem| format!("at byte {at} of its pickle: {problem}"))?;
        }
    }

    fn step(&mut self, opcode: u8) -> Result<(), Problem> {
        match opcode {
            // Protocol, frame: nothing that matters here.
            0x80 => self.take(1).map(drop),
            0x95 => self.take(8).map(drop),
            b'(' => {
                self.count()?;
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'0' => self.pop().map(drop),
            b'1' => self.pop_to_mark().map(drop),
            b'2' => {
                let top = self.top()?;
                self.push(top)
            }
            b'N' | 0x88 | 0x89 | b'J' | b'K' | b'M' | 0x8a | 0x8b | b'G' => self.scalar(opcode),
            0x8c | b'X' | 0x8d | b'U' | b'T' | b'C' | b'B' | 0x8e | 0x96 => self.bytes(opcode),
            b')'
            | b']'
            | 0x8f
            | b't'
            | b'l'
            | 0x91
            | 0x85..=0x87
            | b'a'
            | b'e'
            | 0x90
            | b'}'
            | b'd'
            | b's'
            | b'u' => self.collection(opcode),
            b'q' => {
                let key = self.byte()?.into();
                self.remember(key)
            }
            b'r' => {
                let key = self.length(4)?;
                self.remember(key)
            }
            0x94 => self.remember(self.memo.len()),
            b'h' => {
                let key = self.byte()?.into();
                self.recall(key)
            }
            b'j' => {
                let key = self.length(4)?;
                self.recall(key)
            }
            b'c' => {
                let module = self.line()?;
                let name = self.line()?;
                self.push(Value::Function(function(module, name)?))
            }
            0x93 => match (self.pop()?, self.pop()?) {
                (Value::Text(name), Value::Text(module)) => {
                    self.push(Value::Function(function(module, name)?))
                }
                _ => Err("a name that is no text".into()),
            },
            b'R' => {
                let (arguments, callee) = (self.pop()?, self.pop()?);
                self.call(callee, arguments)
            }
            b'b' => {
                // Attributes of a dict, such as the versions of its modules.
                self.pop()?;
                match self.top()? {
                    Value::Dict(_) | Value::Tensor(_) => Ok(()),
                    _ => Err("it sets attributes of what is no dict or tensor".into()),
                }
            }
            b'Q' => {
                let id = self.pop()?;
                self.storage(id)
            }
            other => Err(unknown(other)),
        }
    }

    /// None, a truth value, a number.
    fn scalar(&mut self, opcode: u8) -> Result<(), Problem> {
        match opcode {
            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            b'J' => {
                let bytes = self.array::<4>()?;
                self.push(Value::Int(i32::from_le_bytes(bytes).into()))
            }
            b'K' => {
                let byte = self.byte()?;
                self.push(Value::Int(byte.into()))
            }
            b'M' => {
                let bytes = self.array::<2>()?;
                self.push(Value::Int(u16::from_le_bytes(bytes).into()))
            }
            0x8a => {
                let length = self.byte()?.into();
                self.long(length)
            }
            0x8b => {
                let length = self.length(4)?;
                self.long(length)
            }
            b'G' => {
                self.take(8)?;
                self.push(Value::Other)
            }
            other => Err(unknown(other)),
        }
    }

    /// Text, and bytes that nothing needs.
    fn bytes(&mut self, opcode: u8) -> Result<(), Problem> {
        match opcode {
            0x8c => self.text(1),
            b'X' => self.text(4),
            0x8d => self.text(8),
            // Python 2's strings, which need not be text.
            b'U' => self.string(1),
            b'T' => self.string(4),
            b'C' => self.skip(1),
            b'B' => self.skip(4),
            0x8e | 0x96 => self.skip(8),
            other => Err(unknown(other)),
        }
    }

    /// A sequence or a dict, and what is put into one.
    fn collection(&mut self, opcode: u8) -> Result<(), Problem> {
        match opcode {
            b')' => self.push_sequence(Vec::new()),
            b']' | 0x8f => self.push_sequence(Vec::new()),
            b't' | b'l' | 0x91 => {
                let items = self.pop_to_mark()?;
                self.push_sequence(items)
            }
            0x85..=0x87 => {
                let mut items = Vec::new();
                for _ in 0..opcode - 0x84 {
                    items.push(self.pop()?);
                }
                items.reverse();
                self.push_sequence(items)
            }
            b'a' => {
                let item = self.pop()?;
                self.append(&[item])
            }
            b'e' | 0x90 => {
                let items = self.pop_to_mark()?;
                self.append(&items)
            }
            b'}' => self.push_dict(Vec::new()),
            b'd' => {
                let items = self.pop_to_mark()?;
                self.push_dict(Vec::new())?;
                self.set(&items)
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set(&[key, value])
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set(&items)
            }
            other => Err(unknown(other)),
        }
    }

    fn call(&mut self, callee: Value<'a>, arguments: Value<'a>) -> Result<(), Problem> {
        let (Value::Function(function), Value::Sequence(arguments)) = (callee, arguments) else {
            return Err("it calls what is no function".into());
        };
        // No more of them matter; a long list must not be copied at every call.
        let all = self.sequence(arguments);
        let arguments = all.get(..all.len().min(4)).unwrap_or_default().to_vec();
        match function {
            Function::OrderedDict => {
                self.push_dict(Vec::new())?;
                let Some(&Value::Sequence(items)) = arguments.first() else { return Ok(()) };
                self.num_values += self.sequence(items).len();
                self.count()?;
                let pairs: Vec<Value> = self
                    .sequence(items)
                    .iter()
                    .filter_map(|item| match *item {
                        Value::Sequence(pair) => self.sequence(pair).get(..2),
                        _ => None,
                    })
                    .flatten()
                    .copied()
                    .collect();
                self.set(&pairs)
            }
            Function::Collection => match arguments.first() {
                Some(&items @ Value::Sequence(_)) => self.push(items),
                _ => self.push_sequence(Vec::new()),
            },
            Function::RebuildTensor => self.tensor(&arguments),
            Function::RebuildParameter => match arguments.first() {
                Some(&tensor @ Value::Tensor(_)) => self.push(tensor),
                _ => Err("a parameter of what is no tensor".into()),
            },
            Function::Plain => self.push(Value::Other),
            Function::Storage(_) => Err("it makes a storage by itself".into()),
        }
    }

    /// `(storage, offset, shape, strides, …)`.
    fn tensor(&mut self, arguments: &[Value<'a>]) -> Result<(), Problem> {
        let [
            Value::Storage(storage),
            Value::Int(offset),
            Value::Sequence(shape),
            Value::Sequence(strides),
            ..,
        ] = *arguments
        else {
            return Err("a tensor without storage, offset, shape and strides".into());
        };
        let num_dimensions = self.sequence(shape).len();
        if num_dimensions > MOST_DIMENSIONS || num_dimensions != self.sequence(strides).len() {
            return Err(format!("a tensor of {num_dimensions} dimensions, or of other strides"));
        }
        let (shape, strides) = (self.counts(shape)?, self.counts(strides)?);
        let offset = usize::try_from(offset).map_err(|_| "a negative offset")?;
        self.count()?;
        self.tensors.push(View { storage, offset, shape, strides });
        self.push(Value::Tensor(self.tensors.len() - 1))
    }

    /// `("storage", class, key, device, number of elements)`.
    fn storage(&mut self, id: Value<'a>) -> Result<(), Problem> {
        let fields = match id {
            Value::Sequence(fields) => self.sequence(fields),
            _ => &[],
        };
        let [
            Value::Text("storage"),
            Value::Function(Function::Storage(dtype)),
            Value::Text(key),
            _,
            Value::Int(num_elements),
            view @ ..,
        ] = fields
        else {
            return Err("it refers to what is no storage".into());
        };
        if !matches!(view, [] | [Value::None]) {
            return Err(format!("storage `{}` is a part of another one", shortened(key)));
        }
        let num_elements =
            usize::try_from(*num_elements).map_err(|_| "a storage of negative size")?;
        let (key, dtype) = (*key, *dtype);
        self.count()?;
        self.storages.push(Storage { key, dtype, num_elements });
        self.push(Value::Storage(self.storages.len() - 1))
    }

    fn counts(&self, sequence: usize) -> Result<Vec<usize>, Problem> {
        let count = |value: &Value| match *value {
            Value::Int(value) => usize::try_from(value).ok(),
            _ => None,
        };
        let counts: Option<Vec<usize>> = self.sequence(sequence).iter().map(count).collect();
        counts.ok_or_else(|| "a shape or stride that is no count".into())
    }

    pub(super) fn sequence(&self, index: usize) -> &[Value<'a>] {
        self.sequences.get(index).map_or(&[], Vec::as_slice)
    }

    fn append(&mut self, items: &[Value<'a>]) -> Result<(), Problem> {
        match self.top()? {
            Value::Sequence(index) => {
                if let Some(sequence) = self.sequences.get_mut(index) {
                    sequence.extend_from_slice(items);
                }
                Ok(())
            }
            _ => Err("it appends to what is no list".into()),
        }
    }

    fn set(&mut self, items: &[Value<'a>]) -> Result<(), Problem> {
        let Value::Dict(index) = self.top()? else {
            return Err("it puts keys into what is no dict".into());
        };
        let Some(dict) = self.dicts.get_mut(index) else { return Ok(()) };
        for pair in items.chunks(2) {
            match *pair {
                [Value::Text(key), value] => dict.push((key, value)),
                [_, _] => {}
                _ => return Err("a key without a value".into()),
            }
        }
        Ok(())
    }

    fn remember(&mut self, key: usize) -> Result<(), Problem> {
        self.count()?;
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: usize) -> Result<(), Problem> {
        match self.memo.get(&key) {
            Some(&value) => self.push(value),
            None => Err(format!("it recalls value {key}, which there is not")),
        }
    }

    /// Whole numbers of any length; those that are too long for a size are none.
    fn long(&mut self, length: usize) -> Result<(), Problem> {
        let bytes = self.take(length)?;
        let Some(&last) = bytes.last() else { return self.push(Value::Int(0)) };
        if length > 8 {
            return self.push(Value::Other);
        }
        // The sign is that of the last byte.
        let mut wide = [if last >= 0x80 { 0xff } else { 0 }; 8];
        wide.iter_mut().zip(bytes).for_each(|(wide, &byte)| *wide = byte);
        self.push(Value::Int(i64::from_le_bytes(wide)))
    }

    fn text(&mut self, width: usize) -> Result<(), Problem> {
        let length = self.length(width)?;
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| "text that is not UTF-8")?;
        self.push(Value::Text(text))
    }

    fn string(&mut self, width: usize) -> Result<(), Problem> {
        let length = self.length(width)?;
        let text = std::str::from_utf8(self.take(length)?);
        self.push(text.map_or(Value::Other, Value::Text))
    }

    fn skip(&mut self, width: usize) -> Result<(), Problem> {
        let length = self.length(width)?;
        self.take(length)?;
        self.push(Value::Other)
    }

    fn push_sequence(&mut self, items: Vec<Value<'a>>) -> Result<(), Problem> {
        self.count()?;
        self.sequences.push(items);
        self.push(Value::Sequence(self.sequences.len() - 1))
    }

    fn push_dict(&mut self, items: Vec<(&'a str, Value<'a>)>) -> Result<(), Problem> {
        self.count()?;
        self.dicts.push(items);
        self.push(Value::Dict(self.dicts.len() - 1))
    }

    fn push(&mut self, value: Value<'a>) -> Result<(), Problem> {
        self.count()?;
        self.stack.push(value);
        Ok(())
    }

    fn count(&mut self) -> Result<(), Problem> {
        self.num_values += 1;
        match self.num_values > MOST_VALUES {
            true => Err(format!("more than {MOST_VALUES} values")),
            false => Ok(()),
        }
    }

    /// How much of the stack belongs to what stands before the last mark.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Result<Value<'a>, Problem> {
        let above = self.stack.len() > self.floor();
        let value = if above { self.stack.pop() } else { None };
        value.ok_or_else(|| "it takes more values than it made".into())
    }

    fn top(&self) -> Result<Value<'a>, Problem> {
        let above = self.stack.get(self.floor()..).and_then(<[Value]>::last);
        above.copied().ok_or_else(|| "it takes more values than it made".into())
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value<'a>>, Problem> {
        let mark = self.marks.pop().ok_or("it takes values up to a mark that it did not set")?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn byte(&mut self) -> Result<u8, Problem> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Problem> {
        let bytes = self.take(N)?;
        bytes.try_into().map_err(|_| "its pickle is cut off".into())
    }

    fn length(&mut self, width: usize) -> Result<usize, Problem> {
        let mut wide = [0; 8];
        wide.iter_mut().zip(self.take(width)?).for_each(|(wide, &byte)| *wide = byte);
        usize::try_from(u64::from_le_bytes(wide)).map_err(|_| "a length beyond the file".into())
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Problem> {
        let end = self.at.checked_add(length);
        let bytes = end.and_then(|end| self.bytes.get(self.at..end));
        let bytes = bytes.ok_or("its pickle is cut off")?;
        self.at += length;
        Ok(bytes)
    }

    fn line(&mut self) -> Result<&'a str, Problem> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest.iter().take(256).position(|&byte| byte == b'\n');
        let line = self.take(length.ok_or("a name without an end")?)?;
        self.at += 1;
        std::str::from_utf8(line).map_err(|_| "a name that is not UTF-8".into())
    }
}

/// What a name stands for.
fn function(module: &str, name: &str) -> Result<Function, Problem> {
    let known = match (module, name) {
        ("collections", "OrderedDict") => Some(Function::OrderedDict),
        ("torch", "Size") | ("builtins" | "__builtin__", "set") => Some(Function::Collection),
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Some(Function::RebuildTensor),
        ("torch._utils", "_rebuild_parameter") => Some(Function::RebuildParameter),
        ("_codecs", "encode") => Some(Function::Plain),
        ("torch", "device" | "float32" | "float16" | "bfloat16" | "float64" | "int64") => {
            Some(Function::Plain)
        }
        ("torch", storage) => dtype_of(storage).map(Function::Storage),
        _ => None,
    };
    known.ok_or_else(|| {
        let (module, name) = (shortened(module), shortened(name));
        format!("it calls `{module}.{name}`, which weights do not need")
    })
}

/// Text of a file for an error.
pub(super) fn shortened(text: &str) -> String {
    text.chars().take(60).collect()
}

fn unknown(opcode: u8) -> Problem {
    format!("instruction 0x{opcode:02x} is not one of saved weights")
}

fn dtype_of(storage: &str) -> Option<Dtype> {
    Some(match storage {
        "FloatStorage" => Dtype::F32,
        "HalfStorage" => Dtype::F16,
        "BFloat16Storage" => Dtype::BF16,
        "DoubleStorage" => Dtype::F64,
        "LongStorage" => Dtype::I64,
        "IntStorage" => Dtype::I32,
        "ShortStorage" => Dtype::I16,
        "CharStorage" => Dtype::I8,
        "ByteStorage" => Dtype::U8,
        "BoolStorage" => Dtype::BOOL,
        _ => return None,
    })
}
