//! Rust text with its indentation.

/// Lines of Rust. Brackets at the ends of lines move the indentation, so that emitters write lines only.
pub struct Code {
    text: String,
    depth: usize,
}

impl Code {
    pub fn new(about: &str) -> Code {
        let mut code = Code { text: String::new(), depth: 0 };
        code.line(&format!("// {about}"));
        code.line("// Generated from schema/ by gen/codegen; `cargo xtask gen` writes it anew.");
        code
    }

    pub fn line(&mut self, line: &str) {
        if line.starts_with(['}', ')', ']']) {
            self.depth = self.depth.saturating_sub(1);
        }
        if !line.is_empty() {
            self.text.extend(std::iter::repeat_n("    ", self.depth));
            self.text.push_str(line);
        }
        self.text.push('\n');
        if line.ends_with(['{', '(', '[']) {
            self.depth += 1;
        }
    }

    pub fn lines(&mut self, lines: &[&str]) {
        for line in lines {
            self.line(line);
        }
    }

    /// A doc comment of the schema, as one of Rust.
    pub fn doc(&mut self, doc: &str) {
        for line in doc.lines() {
            let line = line.trim_end();
            // Text in square brackets is a requirement's ID here, not a link.
            let line = line.replace('[', "\\[").replace(']', "\\]");
            if line.is_empty() { self.plain("///") } else { self.plain(&format!("/// {line}")) }
        }
    }

    /// A line whose end must not be taken for an opening bracket.
    fn plain(&mut self, line: &str) {
        self.text.extend(std::iter::repeat_n("    ", self.depth));
        self.text.push_str(line);
        self.text.push('\n');
    }

    pub fn finish(self) -> String {
        self.text
    }
}
