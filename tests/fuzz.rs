//! The fuzz targets over seeded inputs, so that they run with every change.

use spool::sim::Rng;

use crate::targets;

/// Pieces that make random input get somewhere.
const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\r",
    b"\n",
    b".",
    b"\r\n.\r\n",
    b"\0",
    b" ",
    b"EHLO c.example\r\n",
    b"MAIL FROM:<a@b.example>\r\n",
    b"MAIL FROM:<> BODY=BINARYMIME SIZE=10\r\n",
    b"RCPT TO:<c@d.example>\r\n",
    b"RCPT TO:<c@d.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;x\r\n",
    b"DATA\r\n",
    b"BDAT 5\r\n",
    b"BDAT 12 LAST\r\n",
    b"BDAT 0 LAST\r\n",
    b"RSET\r\n",
    b"NOOP\r\n",
    b"Subject: x\r\n\r\n",
    b"text\r\n",
    b"..",
    b"250 ok\r\n",
    b"250-PIPELINING\r\n",
    b"250 CHUNKING\r\n",
    b"220 hop\r\n",
    b"354 go on\r\n",
    b"451 4.0.0 later\r\n",
    b"550 no\r\n",
    b"250",
    b"250-",
    b"\xff\xc3\xa4",
];

fn input(rng: &mut Rng) -> Vec<u8> {
    of_words(rng, WORDS)
}

fn of_words(rng: &mut Rng, words: &[&[u8]]) -> Vec<u8> {
    let mut data = vec![rng.next_u64() as u8];
    for _ in 0..rng.below(40) {
        if rng.below(4) == 0 {
            data.extend((0..rng.below(30)).map(|_| rng.next_u64() as u8));
        } else {
            data.extend_from_slice(words[rng.index(words.len())]);
        }
    }
    data
}

#[test]
fn the_fuzz_targets_hold_for_seeded_inputs() {
    let mut rng = Rng::new(2026);
    for number in 0..20_000 {
        let data = input(&mut rng);
        let run = std::panic::catch_unwind(|| {
            targets::commands(&data);
            targets::dot(&data);
            targets::bdat(&data);
            targets::replies(&data);
            targets::records(&data);
        });
        assert!(run.is_ok(), "input {number}: {}", data.escape_ascii());
    }
}

/// Pieces of headers and addresses.
const HEADER_WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\r\n\t",
    b"\r\n\r\n",
    b"To: ",
    b"From: ",
    b"Cc:",
    b"Sender: ",
    b"Resent-To: ",
    b"Resent-From: ",
    b"Bcc: ",
    b"Received: x\r\n",
    b"From joe Wed Feb 14 10:11:12 2001\r\n",
    b"Date: ",
    b"Message-Id: ",
    b"X: ",
    b"joe",
    b"joe@here.example",
    b"a.b@far.example",
    b"<",
    b">",
    b"(",
    b")",
    b"\"",
    b"\\",
    b"[",
    b"]",
    b"@",
    b",",
    b";",
    b":",
    b"::",
    b"!",
    b"%",
    b".",
    b" ",
    b"\t",
    b"$(x)",
    b"`",
    b"|",
    b"\0",
    b"\xe9",
    b"\xc3\xa4",
];

#[test]
fn headers_and_addresses_hold_for_seeded_inputs() {
    let mut rng = Rng::new(2027);
    for number in 0..40_000 {
        let data = of_words(&mut rng, HEADER_WORDS);
        let run = std::panic::catch_unwind(|| {
            targets::addresses(&data[1..]);
            targets::message(&data);
        });
        assert!(run.is_ok(), "input {number}: {}", data.escape_ascii());
    }
}

#[test]
fn good_records_with_a_flipped_bit_do_not_panic() {
    let envelope = spool::Envelope {
        sender: b"a@b".to_vec(),
        recipients: vec![spool::Recipient::default(); 3],
        ..spool::Envelope::default()
    };
    let id = spool::SpoolId {
        shard: 1,
        epoch: 2,
        sequence: 3,
    };
    let good = spool::record::whole_payload(id, &envelope, &[], b"content");
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        targets::records(&bad);
    }
}

/// Pieces of sources of databases and of keys.
const MAP_WORDS: &[&[u8]] = &[
    b"\n",
    b" ",
    b"\t",
    b":",
    b",",
    b"\"",
    b"\\",
    b"#",
    b"%0",
    b"%1",
    b"-:",
    b"--",
    b"a.b",
    b".b",
    b".",
    b"a@b",
    b"@",
    b"10.0.0.0/8",
    b"10.1.2.3",
    b"[IPv6:2001:db8::1]",
    b"::/0",
    b"/^(a+)b/i x",
    b"/.*/ %1",
    b"(",
    b"127.0.0.1 localhost lo",
    b"x: y,",
    b"-t unordered",
    b"aliases $DBTYPE - -la f -lm",
    b"\xff",
];

#[test]
fn databases_hold_for_seeded_inputs() {
    let mut rng = Rng::new(2026);
    for number in 0..2_000 {
        let mut data = Vec::new();
        for _ in 0..rng.below(30) {
            data.extend_from_slice(MAP_WORDS[rng.index(MAP_WORDS.len())]);
        }
        let run = std::panic::catch_unwind(|| targets::maps(&data));
        assert!(run.is_ok(), "input {number}: {}", data.escape_ascii());
    }
    // A compiled map of which any byte is another one.
    let mut builder = zmailer::router::relation::compiled::Builder::default();
    builder.add(b"a.b", b"%0 x").expect("a small one");
    builder.add(b".b", b"y").expect("a small one");
    let good = [&b"a.b\n"[..], &builder.finish()].concat();
    for _ in 0..500 {
        let mut bad = good.clone();
        let at = rng.index(bad.len());
        bad[at] ^= 1 << rng.below(8);
        targets::maps(&bad);
    }
}
