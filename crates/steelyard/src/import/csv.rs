//! Comma-separated values (RFC 4180): cells in quotes may hold commas, quotes (doubled) and line ends.

/// A row: the line it begins on, counted from 1, and its cells.
pub type Row = (usize, Vec<String>);

/// Reads rows. Empty lines and lines that begin with `#` are left out.
///
/// # Errors
/// With the line of a quotation that does not end, or that ends in the middle of a cell.
pub fn rows(text: &str) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    let mut chars = text.trim_start_matches('\u{feff}').chars().peekable();
    let mut line = 1;
    while chars.peek().is_some() {
        let begins = line;
        let mut cells = Vec::new();
        let mut any_quoted = false;
        loop {
            let mut cell = String::new();
            if chars.peek() == Some(&'"') {
                any_quoted = true;
                chars.next();
                loop {
                    match chars.next() {
                        Some('"') if chars.peek() == Some(&'"') => {
                            chars.next();
                            cell.push('"');
                        }
                        Some('"') => break,
                        Some(c) => {
                            line += usize::from(c == '\n');
                            cell.push(c);
                        }
                        None => {
                            return Err(format!("line {begins}: a quotation does not end"));
                        }
                    }
                }
                if !matches!(chars.peek(), None | Some(',' | '\r' | '\n')) {
                    return Err(format!(
                        "line {line}: a quotation ends in the middle of a cell"
                    ));
                }
            } else {
                while let Some(c) = chars.next_if(|c| !matches!(c, ',' | '\n')) {
                    cell.push(c);
                }
            }
            cells.push(cell.trim().to_owned());
            if chars.next_if_eq(&',').is_none() {
                break;
            }
        }
        chars.next_if_eq(&'\r');
        chars.next_if_eq(&'\n');
        line += 1;
        let is_empty = cells.iter().all(String::is_empty);
        let is_comment = !any_quoted && cells[0].starts_with('#');
        if !is_empty && !is_comment {
            rows.push((begins, cells));
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_in_quotes_hold_anything() {
        let text = "a, b ,c\r\n\"x,1\",\"say \"\"hi\"\"\",\"two\nlines\"\n# no\n\n,,\nlast,,";
        let expected: Vec<Row> = [
            (1, ["a", "b", "c"]),
            (2, ["x,1", "say \"hi\"", "two\nlines"]),
            (7, ["last", "", ""]),
        ]
        .into_iter()
        .map(|(l, c)| (l, c.map(str::to_owned).to_vec()))
        .collect();
        assert_eq!(rows(text).unwrap(), expected);
        assert_eq!(rows("").unwrap(), []);
    }

    #[test]
    fn a_broken_quotation_is_told_with_its_line() {
        assert!(rows("a\n\"b").unwrap_err().contains("line 2"));
        assert!(rows("\"a\"b,c").unwrap_err().contains("line 1"));
    }
}
