//! Weights that are damaged, or made to do harm: each is an error that names the file, or still a load,
//! and never a panic, a hang or an allocation that the file's size does not account for.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::capped::{ALLOCATOR, alone};
use crate::common::*;
use patchword::checkpoint::convert::convert;
use patchword::checkpoint::weight_file::WeightFile;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const MEGABYTE: usize = 1 << 20;

/// Opens a file and reads every tensor, in at most `memory` bytes and without a hang. The error, if there
/// was one, names the file.
fn read_within(file: &Path, memory: usize) -> Result<(), String> {
    let begin = Instant::now();
    ALLOCATOR.set_limit(ALLOCATOR.allocated() + memory).expect("the limit is above what there is");
    let read = || {
        let weights = WeightFile::open(file)?;
        let mut result = Ok(());
        for name in weights.names() {
            // A tensor that cannot be read must not hide what the next one does.
            result = result.and(weights.read_bytes(name).map(drop));
            let _ = weights.read(name);
            let _ = weights.same(name, weights.names().next().unwrap_or(name));
        }
        result
    };
    let result = read();
    ALLOCATOR.set_limit(usize::MAX).expect("no limit");
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(60), "{}: {took:?}", file.display());
    result.map_err(|error| {
        let said = with_causes(&error);
        let name = file.file_name().expect("a file").to_string_lossy();
        assert!(said.contains(&*name), "does not name {name}: {said}");
        assert!(said.len() < 1000, "more than a reader wants: {said}");
        said
    })
}

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/checkpoint/weight_file/testdata").join(name)
}

/// Whole files: of every form that is read, and those of a real model where they are at hand.
fn whole_files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = ["zip.pth", "protocol4.pth", "stream.pth", "module.bin"]
        .iter()
        .map(|name| testdata(name))
        .collect();
    let converted = folder.join("converted.safetensors");
    convert(&files[0], &converted, None).unwrap();
    files.push(converted);
    let shared = std::env::var_os("PATCHWORD_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    for name in ["model.safetensors", "pytorch_model.bin"] {
        let file = shared.join("parity/blip").join(name);
        if file.exists() { files.push(file) } else { eprintln!("skipped: {}", file.display()) }
    }
    files
}

#[test]
fn cut_and_flipped_files_are_errors_or_still_loads() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let (mut cut, mut flipped, mut survived) = (0, 0, 0);
    for source in whole_files(folder.path()) {
        let whole = fs::read(&source).unwrap();
        let memory = 3 * whole.len() + 2 * MEGABYTE;
        let file = folder.path().join(format!("damaged-{}", source.file_name().unwrap().display()));
        fs::write(&file, &whole).unwrap();
        read_within(&file, memory).unwrap();
        for _ in 0..60 {
            let length = rng.random_range(0..whole.len());
            fs::write(&file, &whole[..length]).unwrap();
            assert!(read_within(&file, memory).is_err(), "{} at {length}", file.display());
            cut += 1;
        }
        for _ in 0..if whole.len() < 10_000 { 800 } else { 80 } {
            let mut bytes = whole.clone();
            // Half of them where the file says what it holds.
            let structure = rng.random_range(0..3);
            let place = match structure {
                0 => rng.random_range(0..whole.len()),
                1 => rng.random_range(0..whole.len().min(16_000)),
                _ => whole.len() - 1 - rng.random_range(0..whole.len().min(9_000)),
            };
            bytes[place] ^= 1 << rng.random_range(0..8);
            fs::write(&file, &bytes).unwrap();
            survived += usize::from(read_within(&file, memory).is_ok());
            flipped += 1;
        }
    }
    assert!(cut >= 200 && flipped >= 1000, "{cut} {flipped}");
    // A bit of a weight is a weight.
    assert!(survived > 100, "{survived}");
    assert!(survived < flipped, "{survived}");
}

#[test]
fn a_table_of_tensors_is_not_believed() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    let safetensors = |header: &str, data: usize| {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; data]].concat()
    };
    let tensor = |name: &str, dtype: &str, shape: &str, offsets: &str| {
        format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}"#)
    };
    let one = |dtype: &str, shape: &str, offsets: &str| {
        format!("{{{}}}", tensor("a", dtype, shape, offsets))
    };
    let two = |first: &str, second: &str| {
        format!("{{{},{}}}", tensor("a", "F32", "[2]", first), tensor("b", "F32", "[2]", second))
    };
    let max = "18446744073709551615";
    let cases = [
        ("a length beyond any file", u64::MAX.to_le_bytes().to_vec()),
        ("a length of 16 MB", [&(1u64 << 24).to_le_bytes()[..], b"{}"].concat()),
        ("a length of 1 TB", [&(1u64 << 40).to_le_bytes()[..], b"{}"].concat()),
        ("overlapping", safetensors(&two("[0,8]", "[4,12]"), 12)),
        ("the same twice", safetensors(&two("[0,8]", "[0,8]"), 8)),
        ("a gap", safetensors(&two("[0,8]", "[12,20]"), 20)),
        ("an offset that overflows", safetensors(&two("[0,8]", &format!("[8,{max}]")), 16)),
        (
            "a product that overflows",
            safetensors(&one("F32", &format!("[{max},{max}]"), "[0,8]"), 8),
        ),
        ("a size that overflows", safetensors(&one("F64", "[2305843009213693952]", "[0,0]"), 0)),
        (
            "nothing of everything",
            safetensors(&one("F32", &format!("[{max},{max},0]"), "[0,0]"), 0),
        ),
        ("more than the file", safetensors(&one("F32", "[1000000000]", "[0,4000000000]"), 8)),
        ("less than the file", safetensors(&one("F32", "[1]", "[0,4]"), 8)),
        ("a size that is no number", safetensors(&one("F32", "[NaN]", "[0,4]"), 4)),
        ("a fraction", safetensors(&one("F32", "[1.5]", "[0,4]"), 4)),
        ("half a byte", safetensors(&one("F4", "[3]", "[0,1]"), 1)),
        ("an unknown type", safetensors(&one("F31", "[1]", "[0,4]"), 4)),
        ("no object", safetensors("[[],[]]", 0)),
        ("deep", safetensors(&"{\"a\":".repeat(100_000), 0)),
        (
            "a long shape",
            safetensors(&one("F32", &format!("[{}1]", "1,".repeat(500_000)), "[0,4]"), 4),
        ),
        (
            "a long name",
            safetensors(&format!("{{{}}}", tensor(&"n".repeat(100_000), "F32", "[1]", "[0,4]")), 4),
        ),
    ];
    for (what, bytes) in cases {
        fs::write(&file, &bytes).unwrap();
        let said = read_within(&file, 8 * bytes.len() + 2 * MEGABYTE);
        assert!(said.is_err(), "{what}");
    }
    let twice = format!(
        "{{{},{}}}",
        tensor("a", "F32", "[1]", "[0,4]"),
        tensor("a", "F32", "[1]", "[0,4]")
    );
    fs::write(&file, safetensors(&twice, 4)).unwrap();
    assert!(read_within(&file, MEGABYTE).unwrap_err().contains("twice"));
}

/// The older form of torch.save around a pickle, with one storage `0` of two floats.
fn stream(pickle: &[u8]) -> Vec<u8> {
    let magic = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";
    let rest = b"\x80\x02](X\x01\0\0\x000e.\x02\0\0\0\0\0\0\0\0\0\x80?\0\0\0@";
    [&magic[..], b"\x80\x02M\xe9\x03.\x80\x02}.", pickle, rest].concat()
}

/// `{"a": tensor}` of a storage `0` that is said to have `num_elements`, all numbers as instructions.
fn tensor(num_elements: &[u8], offset: &[u8], shape: &[u8], strides: &[u8]) -> Vec<u8> {
    [
        b"\x80\x02}X\x01\0\0\0actorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storage".as_slice(),
        b"ctorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu",
        num_elements,
        b"tQ",
        offset,
        b"(",
        shape,
        b"t(",
        strides,
        b"t\x89NtRs.",
    ]
    .concat()
}

/// A whole number as an instruction of a pickle.
fn number(value: i64) -> Vec<u8> {
    [&[0x8a, 8], &value.to_le_bytes()[..]].concat()
}

#[test]
fn a_pickle_can_do_nothing_but_describe_tensors() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pytorch_model.bin");
    let read = |pickle: &[u8]| {
        let bytes = stream(pickle);
        fs::write(&file, &bytes).unwrap();
        read_within(&file, 3 * bytes.len() + 2 * MEGABYTE)
    };
    let n = number;
    assert_eq!(read(&tensor(&n(2), &n(0), &n(2), &n(1))), Ok(()));

    // Every instruction there is, where nothing was made that it could work on.
    for opcode in 0..=u8::MAX {
        assert!(read(&[0x80, 2, opcode]).is_err(), "{opcode}");
        assert!(read(&[0x80, 2, opcode, b'.']).is_err(), "{opcode}");
    }
    // Those that make objects, call persistent ids by text, or look into registries.
    for opcode in [b'i', b'o', 0x81, 0x92, b'P', 0x82, 0x83, 0x84, 0x97, 0x98] {
        let said = read(&[0x80, 2, b'}', opcode, b'.']).unwrap_err();
        assert!(said.contains(&format!("instruction 0x{opcode:02x}")), "{said}");
    }
    for (module, name) in [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("__builtin__", "exec"),
        ("subprocess", "Popen"),
        ("torch.storage", "_load_from_bytes"),
        ("torch", "load"),
        ("torch._utils", "_rebuild_sparse_tensor"),
        ("numpy.core.multiarray", "_reconstruct"),
    ] {
        let line = format!("\x02}}X\x01\0\0\0ac{module}\n{name}\nX\x02\0\0\0ls\u{5}Rs.");
        let said = read(&[&[0x80], line.as_bytes()].concat()).unwrap_err();
        assert!(said.contains(&format!("`{module}.{name}`")), "{said}");
        let (module_length, name_length) = (module.len() as u8, name.len() as u8);
        let stacked = [
            &[0x80, 4, 0x8c, module_length][..],
            module.as_bytes(),
            &[0x8c, name_length],
            name.as_bytes(),
            &[0x93, b')', b'R', b'.'],
        ]
        .concat();
        let said = read(&stacked).unwrap_err();
        assert!(said.contains(&format!("`{module}.{name}`")), "{said}");
    }
}

#[test]
fn tensors_are_within_their_storage_and_storages_within_the_file() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("weights.pth");
    let n = number;
    let many = n(1).repeat(17);
    let cases: [(&str, Vec<u8>); 14] = [
        ("one element too many", tensor(&n(2), &n(0), &n(3), &n(1))),
        ("an offset too far", tensor(&n(2), &n(1), &n(2), &n(1))),
        ("an offset beyond all", tensor(&n(2), &n(i64::MAX), &n(1), &n(1))),
        ("a negative offset", tensor(&n(2), &n(-1), &n(1), &n(1))),
        ("a stride too wide", tensor(&n(2), &n(0), &n(2), &n(2))),
        ("a stride beyond all", tensor(&n(2), &n(0), &n(3), &n(i64::MAX))),
        ("a negative stride", tensor(&n(2), &n(1), &n(2), &n(-1))),
        ("a negative size", tensor(&n(2), &n(0), &n(-2), &n(1))),
        ("sizes that overflow", {
            let shape = [n(i64::MAX), n(i64::MAX)].concat();
            tensor(&n(2), &n(0), &shape, &[n(0), n(0)].concat())
        }),
        ("a tensor that repeats", tensor(&n(2), &n(0), &n(1 << 40), &n(0))),
        ("shape without stride", tensor(&n(2), &n(0), &n(2), b"")),
        ("many dimensions", tensor(&n(2), &n(0), &many, &many)),
        ("a storage of another size", tensor(&n(1 << 60), &n(0), &n(2), &n(1))),
        ("a negative storage", tensor(&n(-2), &n(0), &n(2), &n(1))),
    ];
    for (what, pickle) in cases {
        let bytes = stream(&pickle);
        fs::write(&file, &bytes).unwrap();
        assert!(read_within(&file, 2 * MEGABYTE).is_err(), "{what}");
    }
    // The storage itself says that it is larger than the file.
    let pickle = tensor(&n(1 << 61), &n(0), &n(2), &n(1));
    let mut bytes = stream(&pickle);
    let place = bytes.len() - 16;
    bytes[place..place + 8].copy_from_slice(&(1u64 << 61).to_le_bytes());
    fs::write(&file, &bytes).unwrap();
    let said = read_within(&file, 2 * MEGABYTE).unwrap_err();
    assert!(said.contains("beyond the end of the file"), "{said}");
}

/// Tied weights look at one storage; a thousand names for it would be a thousand times its memory.
#[test]
fn tensors_may_share_a_storage_but_not_make_much_of_it() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shared.bin");
    let (magic, elements) = (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", 10_000);
    let text =
        |text: &str| [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat();
    let read = |names: usize| {
        let mut pickle = b"\x80\x02}".to_vec();
        for name in 0..names {
            pickle.extend(text(&format!("layer.{name}")));
            pickle.extend(match name {
                0 => [
                    b"ctorch._utils\n_rebuild_tensor_v2\n((".as_slice(),
                    &text("storage"),
                    b"ctorch\nFloatStorage\n",
                    &text("0"),
                    &text("cpu"),
                    &number(elements),
                    b"tQ",
                    &number(0),
                    b"(",
                    &number(elements),
                    b"t(",
                    &number(1),
                    b"t\x89NtRq\0",
                ]
                .concat(),
                _ => b"h\0".to_vec(),
            });
            pickle.push(b's');
        }
        let rest = b".\x80\x02](X\x01\0\0\x000e.";
        let storage =
            [&(elements as u64).to_le_bytes()[..], &vec![0; 4 * elements as usize]].concat();
        let head = b"\x80\x02M\xe9\x03.\x80\x02}.";
        fs::write(&file, [&magic[..], head, &pickle, rest, &storage].concat()).unwrap();
        read_within(&file, 2 * MEGABYTE)
    };
    assert_eq!(read(2), Ok(()));
    let said = read(1000).unwrap_err();
    assert!(said.contains("`layer.5`") && said.contains("repeat their elements"), "{said}");
}

#[test]
fn small_pickles_do_not_unfold_into_large_values() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bomb.bin");
    let mut laughs = b"\x80\x02]q\0".to_vec();
    for level in 1..=200u8 {
        // A list of the last list, twelve times.
        laughs.extend([b']', b'q', level, b'(']);
        laughs.extend([b'h', level - 1].repeat(12));
        laughs.push(b'e');
    }
    laughs.push(b'.');
    // A list of lists of lists …, each put into the one around it only at the end.
    let deep = [b"\x80\x02".as_slice(), &[b']'].repeat(120_000), &[b'a'].repeat(119_999), b"."];
    // A dict that is its own state dict.
    let own = b"\x80\x02}q\0X\x05\0\0\0modelh\0s.".to_vec();
    // A long list, made a set again and again.
    let mut sets = b"\x80\x02]q\0(".to_vec();
    sets.extend([b'N'].repeat(100_000));
    sets.extend(b"ec__builtin__\nset\nq\x01");
    sets.extend(b"h\x01h\0\x85R0".repeat(60_000));
    sets.push(b'.');
    let mut dicts = b"\x80\x02]q\0(".to_vec();
    dicts.extend([b'N'].repeat(100_000));
    dicts.extend(b"eccollections\nOrderedDict\nq\x01");
    dicts.extend(b"h\x01h\0\x85R0".repeat(60_000));
    dicts.push(b'.');
    let many = [b"\x80\x02(".as_slice(), &[b'N'].repeat(3_000_000), b"l."].concat();
    let marks = [b"\x80\x02".as_slice(), &[b'('].repeat(3_000_000), b"l."].concat();
    let empties = [b"\x80\x02(".as_slice(), &[b'}'].repeat(3_000_000), b"l."].concat();
    let memo: Vec<u8> = (0..600_000u32)
        .flat_map(|key| [&[b'N', b'r'][..], &key.to_le_bytes(), b"0"].concat())
        .collect();
    let memo = [b"\x80\x02".as_slice(), &memo, b"."].concat();
    let long = [b"\x80\x02\x8d".as_slice(), &u64::MAX.to_le_bytes(), b"a."].concat();
    let whole = [b"\x80\x02\x8b".as_slice(), &u32::MAX.to_le_bytes(), b"a."].concat();
    let bombs = [
        ("laughs", laughs),
        ("deep", deep.concat()),
        ("own", own),
        ("sets", sets),
        ("dicts", dicts),
        ("many", many),
        ("marks", marks),
        ("empties", empties),
        ("memo", memo),
        ("long", long),
        ("whole", whole),
    ];
    for (what, pickle) in bombs {
        fs::write(&file, stream(&pickle)).unwrap();
        assert!(read_within(&file, 3 * pickle.len() + 64 * MEGABYTE).is_err(), "{what}");
    }
}

#[test]
fn a_zip_directory_is_not_believed() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("damaged.pth");
    let whole = fs::read(testdata("zip.pth")).unwrap();
    let find = |what: &[u8]| -> Vec<usize> {
        (0..whole.len() - 4).filter(|&at| whole[at..].starts_with(what)).collect()
    };
    let (entries, end) = (find(b"PK\x01\x02"), *find(b"PK\x05\x06").last().unwrap());
    let changed = |changes: &[(usize, &[u8])]| {
        let mut bytes = whole.clone();
        for &(at, new) in changes {
            bytes[at..at + new.len()].copy_from_slice(new);
        }
        fs::write(&file, bytes).unwrap();
        read_within(&file, 2 * MEGABYTE)
    };
    assert_eq!(changed(&[]), Ok(()));
    let full: &[u8] = &[0xff; 4];
    // What has no room in the last record is in a wider one, which torch.save always writes.
    assert_eq!(changed(&[(end + 12, full), (end + 16, full)]), Ok(()));
    let wide = find(b"PK\x06\x06")[0];
    assert!(changed(&[(end + 16, full), (wide + 40, full)]).is_err(), "a long wide directory");
    assert!(changed(&[(end + 16, full), (wide + 48, &[0xff; 8])]).is_err(), "one beyond all");
    assert!(changed(&[(end + 16, full), (end - 12, &[0xff; 8])]).is_err(), "no wide record");
    assert!(changed(&[(end + 12, &[0xfe, 0xff, 0xff, 0xff])]).is_err(), "a long directory");
    assert!(changed(&[(end + 16, &[0xfe, 0xff, 0xff, 0xff])]).is_err(), "a directory elsewhere");
    for &entry in &entries {
        let deflated = changed(&[(entry + 10, &[8, 0])]).unwrap_err();
        assert!(deflated.contains("is compressed"), "{deflated}");
        assert!(changed(&[(entry + 8, &[1, 0])]).is_err(), "encrypted");
        let long = [0xfe, 0xff, 0xff, 0x7f];
        assert!(changed(&[(entry + 20, &long), (entry + 24, &long)]).is_err(), "long");
        assert!(changed(&[(entry + 20, full), (entry + 24, full)]).is_err(), "wide, without sizes");
        assert!(changed(&[(entry + 24, &[7, 7, 7, 0])]).is_err(), "two sizes");
        assert!(changed(&[(entry + 42, &long)]).is_err(), "elsewhere");
        assert!(changed(&[(entry + 28, &[0xff, 0xff])]).is_err(), "a long name");
        assert!(changed(&[(entry + 30, &[0xff, 0xff])]).is_err(), "long extra fields");
    }
    let place = |entry: usize| whole[entry + 42..entry + 46].to_vec();
    let both = place(entries[0]);
    assert!(changed(&[(entries[1] + 42, &both)]).unwrap_err().contains("overlap"));
}

#[test]
fn the_program_names_the_file_and_runs_nothing() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let caption = |model: &Path| {
        let mut command = patchword();
        command.current_dir(folder.path()).args(["caption", "photo.png", "--model"]).arg(model);
        run(&mut command)
    };
    image::RgbImage::new(8, 8).save(at("photo.png")).unwrap();
    fs::write(at("config.json"), r#"{"model_type": "blip"}"#).unwrap();
    let whole = fs::read(testdata("zip.pth")).unwrap();
    let cases: [(&str, Vec<u8>, &str); 4] = [
        ("pytorch_model.bin", fs::read(testdata("command.bin")).unwrap(), "`posix.system`"),
        ("pytorch_model.bin", fs::read(testdata("command_stream.bin")).unwrap(), "`posix.system`"),
        ("pytorch_model.bin", whole[..whole.len() / 2].to_vec(), "zip directory"),
        ("model.safetensors", u64::MAX.to_le_bytes().to_vec(), "18446744073709551615 bytes"),
    ];
    for (name, bytes, word) in cases {
        fs::write(at(name), bytes).unwrap();
        let original = at("original.pth");
        fs::copy(at(name), &original).unwrap();
        for (model, names) in [(folder.path(), at(name)), (&original, original.clone())] {
            let ended = caption(model);
            assert!(!ended.is_a_bug(), "{ended:#?}");
            assert_eq!(ended.code, 1, "{ended:#?}");
            assert_eq!(ended.lines("error: ").len(), 1, "{ended:#?}");
            assert!(ended.stderr.contains(&names.display().to_string()), "{ended:#?}");
            // A file of another form under PyTorch's usual name is refused before it is looked at.
            let said = ended.stderr.contains(word) || ended.stderr.contains("torch.save");
            assert!(said, "{word}: {ended:#?}");
        }
        fs::remove_file(at(name)).unwrap();
    }
    assert!(!at("executed").exists());
}
