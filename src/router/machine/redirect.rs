//! Redirections and pipes.

use super::output::{Input, Sink};
use super::{Evaluation, Flow, Pause};
use crate::router::code::{FileMode, Op};
use crate::router::request::Answer;

impl Evaluation {
    /// Operations about input and output; `false`: it is none.
    pub(super) fn io_op(&mut self, op: &Op) -> Result<bool, Pause> {
        match op {
            Op::Redirect(skip) => {
                self.settle();
                self.save_io(*skip);
            }
            Op::File { descriptor, mode } => self.redirect_file(*descriptor, *mode)?,
            Op::Here(descriptor) => {
                let value = self.pop_value();
                if *descriptor == 0 {
                    self.push_input(value.bytes().to_vec());
                }
            }
            Op::Duplicate { descriptor, of } => self.duplicate(*descriptor, *of),
            Op::Close(descriptor) => match descriptor {
                0 => {
                    self.inputs.push(Input::Closed);
                    self.io.input = self.inputs.len() - 1;
                }
                _ => self.set_sink(*descriptor, Sink::Closed),
            },
            Op::EndRedirect => {
                self.settle();
                self.close_io();
            }
            Op::Pipe => {
                self.settle();
                self.open_buffer();
            }
            Op::PipeInput => {
                self.settle();
                let bytes = self.close_io();
                self.open_input(bytes);
            }
            Op::PipeNext => {
                self.settle();
                let bytes = self.close_io();
                self.close_io();
                self.open_input(bytes);
            }
            // What the last command returned may still be taken; it is shown where output goes from here on.
            Op::EndPipe => {
                self.close_io();
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn duplicate(&mut self, descriptor: u8, of: u8) {
        let sink = match of {
            1 => self.io.output,
            2 => self.io.error,
            _ => return self.redirection_failed(&format!("no fd {of}!")),
        };
        match descriptor {
            1 => self.io.output = sink,
            2 => self.io.error = sink,
            _ => {}
        }
    }

    /// Files are opened now, so that what cannot be opened is not run; output is written when the redirection ends.
    fn redirect_file(&mut self, descriptor: u8, mode: FileMode) -> Flow {
        let path = self.pop_value().bytes().to_vec();
        let request = Self::file_mode_request(path.clone(), mode);
        self.flush_then(move |machine| {
            machine.need(request, move |machine, answer| {
                machine.redirected(descriptor, path, answer);
                Ok(())
            })
        })
    }

    fn redirected(&mut self, descriptor: u8, path: Vec<u8>, answer: Answer) {
        match answer {
            Answer::File(Ok((bytes, _))) if descriptor == 0 => self.push_input(bytes),
            Answer::File(Ok(_)) => {}
            Answer::Done(Ok(())) => {
                let bytes = Vec::new();
                self.set_sink(descriptor, Sink::File { path, bytes });
            }
            Answer::File(Err(failure)) | Answer::Done(Err(failure)) => {
                self.redirection_failed(&failure.text)
            }
            answer => unreachable!("{answer:?} answers no redirection"),
        }
    }

    /// The command is not run.
    fn redirection_failed(&mut self, message: &str) {
        self.complain(message);
        self.status = 1;
        self.jump(self.behind_command());
    }
}
