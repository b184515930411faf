//! `status` and `spool`: looking at a sensor without disturbing it.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::{DONE, FAILED, Form, complain};
use crate::config::{Config, Mode};
use crate::escape::escaped;
use crate::spool::decode::LogDecoder;
use crate::spool::view::{ChunkView, FoundFile, HoleView, SegmentView, files, holes};
use crate::status::Status;

const HOUR_MS: u64 = 3_600_000;

pub(super) fn status(config: &Path, form: Form) -> i32 {
    let shown = Config::load(config).map_err(|error| error.to_string()).and_then(|config| {
        let status = Status::read(&config.state_dir).map_err(|error| error.to_string())?;
        Ok(match form {
            Form::Text => status.to_string(),
            Form::Json => serde_json::to_string(&status).map_err(|error| error.to_string())? + "\n",
        })
    });
    match shown {
        Ok(text) => finish(io::stdout().lock().write_all(text.as_bytes())),
        Err(problem) => {
            complain(&problem);
            FAILED
        }
    }
}

pub(super) fn spool(config: &Path, form: Form) -> i32 {
    let config = match Config::load(config) {
        Ok(config) => config,
        Err(error) => {
            complain(&error);
            return FAILED;
        }
    };
    let folder = config.state_dir.join("spool");
    let found = files(&folder).and_then(|found| Ok((found, holes(&folder)?)));
    let (found, holes) = match found {
        Ok(found) => found,
        Err(error) => {
            complain(&format!("{}: {error}", folder.display()));
            return FAILED;
        }
    };
    let mut output = BufWriter::new(io::stdout().lock());
    finish(match form {
        Form::Text => {
            let is_in_memory = config.spool.mode == Mode::Memory;
            text(&found, &holes, is_in_memory, &mut output)
        }
        Form::Json => json(&found, &holes, &mut output),
    })
}

/// Whoever reads may stop reading: a closed pipe is no failure of ours.
fn finish(written: io::Result<()>) -> i32 {
    match written {
        Ok(()) => DONE,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => DONE,
        Err(error) => {
            complain(&error);
            FAILED
        }
    }
}

/// Visits every chunk in order; a file that vanished meanwhile was trimmed, and is left out.
fn walk(
    found: &[FoundFile],
    mut visit: impl FnMut(ChunkView) -> io::Result<()>,
) -> io::Result<Vec<SegmentView>> {
    let mut segments = Vec::new();
    let mut decoder = LogDecoder::default();
    let mut last = None;
    for file in found {
        if file.begins_log(last) {
            decoder = LogDecoder::default();
        }
        last = Some(file);
        match file.read(&mut decoder, &mut visit) {
            Ok(segment) => segments.push(segment),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(segments)
}

/// One object, written as it is read: a spool may be larger than memory.
fn json(found: &[FoundFile], holes: &[HoleView], output: &mut impl Write) -> io::Result<()> {
    output.write_all(b"{\"chunks\":[")?;
    let mut separator: &[u8] = b"";
    let segments = walk(found, |chunk| {
        output.write_all(separator)?;
        separator = b",";
        serde_json::to_writer(&mut *output, &chunk).map_err(io::Error::from)
    })?;
    output.write_all(b"],\"segments\":")?;
    serde_json::to_writer(&mut *output, &segments)?;
    output.write_all(b",\"holes\":")?;
    serde_json::to_writer(&mut *output, holes)?;
    output.write_all(b"}\n")?;
    output.flush()
}

fn text(
    found: &[FoundFile],
    holes: &[HoleView],
    is_in_memory: bool,
    output: &mut impl Write,
) -> io::Result<()> {
    let segments = walk(found, |chunk| {
        let keyframe = if chunk.keyframe { ", keyframe" } else { "" };
        let stored = if chunk.acked { ", stored" } else { "" };
        writeln!(
            output,
            "{} {} chunk {}: {} facts from {}, {} bytes{keyframe}{stored}",
            chunk.lane, chunk.log, chunk.seq, chunk.count, chunk.first_index, chunk.bytes
        )?;
        for op in &chunk.ops {
            writeln!(output, "    {op}")?;
        }
        match &chunk.undecoded {
            Some(problem) => writeln!(output, "    the rest cannot be read: {problem}"),
            None => Ok(()),
        }
    })?;
    for segment in &segments {
        let age = segment.age_ms.map(|age_ms| format!(", {} h old", age_ms / HOUR_MS));
        writeln!(
            output,
            "{} {} segment from {}: {} chunks, {} bytes{}, stored up to {}  {}",
            segment.lane,
            segment.log,
            segment.first_seq,
            segment.chunks,
            segment.bytes,
            age.unwrap_or_default(),
            segment.acked_seq,
            escaped(&segment.file)
        )?;
    }
    for hole in holes {
        let told = if hole.acked { ", told" } else { "" };
        let last = match hole.to_index {
            Some(index) => format!("up to fact {index}"),
            None => "of a size that nobody knows".into(),
        };
        let HoleView { lane, log, from_seq, to_seq, cause, .. } = hole;
        writeln!(output, "{lane} {log} hole from {from_seq} to {to_seq}, {last}: {cause}{told}")?;
    }
    match (segments.is_empty(), is_in_memory) {
        (_, true) => writeln!(output, "chunks are kept in memory: see `status`")?,
        (true, false) => writeln!(output, "the spool is empty")?,
        (false, false) => {}
    }
    output.flush()
}
