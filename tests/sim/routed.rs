//! What a router makes of recipients, through whole shards: lists, holds, questions, crashes, operators.

use zmailer::control::postman::{Kept, Place};
use zmailer::control::queue::Act;

use super::routed_site::{Hop, LIST_LINE, MEMBERS, OTHER_HOP, Site};

#[test]
fn a_list_gets_changed_content_from_its_owner() {
    let mut site = Site::new();
    site.hop.refuses.insert("m3@member.example".to_owned());
    site.hop.defers.insert("m4@member.example".to_owned());
    site.send(&["list", "plain"], "text");
    site.run("all but one are delivered", |site| site.queued() == 1);
    let deliveries = site.deliveries();
    assert_eq!(deliveries.len(), MEMBERS - 2 + 1 + 1, "{deliveries:?}");
    assert!(deliveries.values().all(|count| *count == 1));
    for taken in &site.hop.taken {
        let is_member = taken.recipients[0].ends_with("@member.example");
        let is_report = taken.sender.is_empty();
        let expected = if is_report {
            ""
        } else if is_member {
            "owner@list.example"
        } else {
            "a@source.example"
        };
        assert_eq!(taken.sender, expected);
        assert_eq!(taken.content.starts_with(LIST_LINE), is_member);
        assert!(is_report || taken.content.ends_with(b"Subject: s\r\n\r\ntext\r\n"));
    }
    // The owner hears of it, and by which name the sender knew the list.
    let report = site.hop.taken.iter().find(|taken| taken.sender.is_empty());
    let report = report.expect("a report");
    assert_eq!(report.recipients, ["owner@list.example"]);
    let text = String::from_utf8_lossy(&report.content).into_owned();
    assert!(
        text.contains("Final-Recipient: rfc822; m3@member.example"),
        "{text}"
    );
    assert!(text.contains("list@x.example"), "{text}");
    site.hop.defers.clear();
    site.wait(3);
    assert!(site.drained());
    assert_eq!(site.deliveries()["m4@member.example"], 1);
}

#[test]
fn nobody_gets_a_list_twice_after_a_crash_and_nobody_misses_it() {
    for turns in (0..400).step_by(7) {
        let mut site = Site::new();
        site.send(&["list"], "text");
        for _ in 0..turns {
            site.turn();
        }
        let before = site.deliveries();
        site.crash();
        site.run("all is delivered", |site| site.drained());
        let after = site.deliveries();
        assert_eq!(after.len(), MEMBERS, "{turns} turns");
        let most = after.values().max().copied().unwrap_or(0);
        // Only what was told in the last moments is not on disk, and what was under way.
        assert!(most <= 2, "{turns} turns: {after:?}");
        if before.len() == MEMBERS && turns > 300 {
            assert_eq!(most, 1, "{turns} turns");
        }
    }
}

#[test]
fn outcomes_of_members_are_kept() {
    let mut site = Site::new();
    let late: Vec<String> = (0..5).map(|n| format!("m{n}@member.example")).collect();
    site.hop.defers.extend(late.iter().cloned());
    site.send(&["list"], "text");
    site.run("all but five are delivered", |site| site.queued() == 5);
    site.wait(0);
    for _ in 0..3 {
        site.net.advance(1_000_000_000);
        for _ in 0..50 {
            site.turn();
        }
        site.crash();
        for _ in 0..100 {
            site.turn();
        }
        assert_eq!(site.queued(), 5);
    }
    site.hop.defers.clear();
    site.wait(5);
    assert!(site.drained());
    let deliveries = site.deliveries();
    assert_eq!(deliveries.len(), MEMBERS);
    assert!(
        deliveries.values().all(|count| *count == 1),
        "{deliveries:?}"
    );
    assert_eq!(site.tell.borrow().routed, ["list@x.example"], "routed once");
}

#[test]
fn large_content_is_changed_piece_by_piece() {
    let mut site = Site::new();
    let body = "0123456789012345678901234567890123456789\r\n".repeat(9000);
    site.send(&["mix2", "list"], &body);
    site.run("all is delivered", |site| site.drained());
    for taken in &site.hop.taken {
        let is_list = taken.sender == "owner@list.example";
        assert_eq!(taken.content.starts_with(LIST_LINE), is_list);
        assert!(
            taken
                .content
                .ends_with(format!("\r\n\r\n{body}\r\n").as_bytes())
        );
    }
    assert_eq!(site.deliveries().len(), MEMBERS + 1);
}

#[test]
fn what_is_dropped_refused_or_held_goes_its_way() {
    let mut site = Site::new();
    site.send(&["drop", "none", "error", "mix"], "text");
    site.run("one is left", |site| site.queued() == 1);
    let deliveries = site.deliveries();
    // Two reports: to the sender and to the owner.
    let expected = ["a@source.example", "good@member.example"];
    assert_eq!(deliveries.keys().collect::<Vec<_>>(), expected);
    assert_eq!(deliveries["a@source.example"], 2);
    let page = site.inquire("", None);
    let entry = &page.entries[0];
    assert_eq!(entry.generation, Some(1));
    let waits = &entry.recipients[0];
    assert_eq!((&*waits.channel, waits.state), ("hold", "deferred"));
    assert!(waits.reply.ends_with(b"NS:member.example/mx"));
    // It is asked for by its own name: the test's router knows no `mix` any more that would be held.
    site.wait(2);
    assert!(site.queued() >= 1);
    // It expires with a report to the owner of the list it came by.
    site.wait(70);
    assert!(site.drained(), "{}", site.net.log(0));
    assert!(site.deliveries().contains_key("owner@list.example"));
}

#[test]
fn what_the_router_cannot_decide_is_asked_for_again() {
    let mut site = Site::new();
    site.send(&["hold", "plain"], "text");
    site.run("the other one is delivered", |site| site.queued() == 1);
    site.wait(3);
    let asked = site.tell.borrow().routed.len();
    assert!(asked > 3, "{asked}: it was not asked for again");
    site.crash();
    for _ in 0..100 {
        site.turn();
    }
    assert_eq!(site.queued(), 1);
    site.tell.borrow_mut().decided = true;
    site.wait(2);
    assert!(site.drained());
    assert_eq!(site.deliveries()["hold@x.example"], 1);
    assert_eq!(site.deliveries()["plain@x.example"], 1);
}

#[test]
fn routings_wait_in_bounded_number_and_survive_a_crash() {
    let mut site = Site::new();
    site.answering = false;
    for number in 0..4 {
        site.send(&[&format!("ask{number}")], "text");
    }
    for _ in 0..100 {
        site.turn();
    }
    assert_eq!(
        site.questions.len(),
        2,
        "two routings wait, others for them"
    );
    let id = site.connect();
    site.say(id, "MAIL FROM:<a@source.example>\r\n", "451 4.3.2");
    site.net.client_close(id);
    assert!(site.hop.taken.is_empty());
    site.crash();
    site.answering = true;
    site.run("all is delivered", |site| site.drained());
    let deliveries = site.deliveries();
    assert_eq!(deliveries.len(), 4);
    assert!(
        deliveries.values().all(|count| *count == 1),
        "{deliveries:?}"
    );
    let id = site.connect();
    site.say(id, "MAIL FROM:<a@source.example>\r\n", "250");
}

#[test]
fn a_question_that_is_never_answered_ends_in_a_hold() {
    let mut site = Site::new();
    site.answering = false;
    site.send(&["ask"], "text");
    for _ in 0..50 {
        site.turn();
    }
    while site.questions.pop().is_some() {}
    site.wait(4);
    assert_eq!(site.queued(), 1);
    site.answering = true;
    site.wait(4);
    assert!(site.drained());
    assert_eq!(site.deliveries()["ask@x.example"], 1);
}

#[test]
fn a_router_may_read_the_header() {
    let mut site = Site::new();
    site.send(&["read1"], "text");
    let body = "0123456789012345678901234567890123456789\r\n".repeat(9000);
    site.send(&["read2"], &body);
    site.run("all is delivered", |site| site.drained());
    assert_eq!(site.deliveries().len(), 2);
}

#[test]
fn a_stopped_routing_goes_to_deferred_and_the_rest_flows_on() {
    let mut site = Site::new();
    site.send(&["stop"], "text");
    site.send(&["plain"], "text");
    site.run("the other one is delivered", |site| site.queued() == 1);
    let kept = site.keep.pop().expect("a file");
    let Place::Deferred(envelope) = &kept.place else {
        panic!("not for deferred/: {kept:?}");
    };
    assert_eq!(envelope.sender.as_deref(), Some(&b"a@source.example"[..]));
    assert_eq!(envelope.recipients[0].address, b"stop@x.example");
    assert_eq!(envelope.comments, [b"more than 1000000 steps".to_vec()]);
    // While it cannot be written the message stays.
    let (token, result) = (kept.token, Err("disk full".to_owned()));
    assert!(site.kept.push(Kept { token, result }).is_ok());
    for _ in 0..100 {
        site.turn();
    }
    assert_eq!(site.queued(), 1);
    site.wait(2);
    let kept = site.keep.pop().expect("the file again");
    let (token, result) = (kept.token, Ok(()));
    assert!(site.kept.push(Kept { token, result }).is_ok());
    site.run("it has left", |site| site.drained());
    assert_eq!(site.deliveries().len(), 1);
}

#[test]
fn an_operator_has_recipients_routed_again() {
    let mut site = Site::new();
    let late: Vec<String> = (0..5).map(|n| format!("m{n}@member.example")).collect();
    site.hop.defers.extend(late.iter().cloned());
    site.hop.defers.insert("plain@x.example".to_owned());
    site.send(&["list", "plain"], "text");
    site.run("six are left", |site| site.queued() == 6);
    let first = site.hop.taken.len();
    // The next hop has gone, and a new configuration names another one.
    let mut other = Hop::new(&site.net, OTHER_HOP);
    site.tell.borrow_mut().other_hop = true;
    let page = site.inquire("state = deferred", Some(Act::Reroute));
    assert_eq!(page.acted, 6);
    let address = other.address;
    site.run("all is delivered", |site| {
        other.turn(&site.net);
        site.drained()
    });
    assert_eq!(
        site.hop.taken.len(),
        first,
        "nothing more went to the old one"
    );
    assert_eq!(other.address, address);
    let mut got: Vec<String> = other
        .taken
        .iter()
        .flat_map(|taken| taken.recipients.clone())
        .collect();
    got.sort();
    let mut expected = late;
    expected.push("plain@x.example".to_owned());
    assert_eq!(got, expected, "and nobody got it twice");
}

/// Recipients of an entry that would change, with what they become.
fn changes(page: &zmailer::control::queue::Page) -> Vec<(String, String)> {
    let all = page.entries.iter().flat_map(|entry| &entry.recipients);
    let changed = all.filter_map(|recipient| {
        let address = String::from_utf8_lossy(&recipient.address).into_owned();
        Some((address, recipient.becomes.clone()?))
    });
    changed.collect()
}

#[test]
fn a_dry_run_names_what_rerouting_would_change_and_changes_nothing() {
    let mut site = Site::new();
    let late: Vec<String> = (0..3).map(|n| format!("m{n}@member.example")).collect();
    site.hop.defers.extend(late.iter().cloned());
    site.hop.defers.insert("plain@x.example".to_owned());
    site.send(&["list", "plain"], "text");
    site.run("four are left", |site| site.queued() == 4);
    let page = site.try_out("", Act::Reroute);
    assert_eq!((page.recipients, page.acted), (4, 0), "nothing has changed");
    assert_eq!(changes(&page), []);
    site.tell.borrow_mut().other_hop = true;
    let page = site.try_out("", Act::Reroute);
    assert_eq!((page.recipients, page.acted), (4, 4));
    let expected: Vec<(String, String)> = ["plain@x.example".to_owned()]
        .iter()
        .chain(&late)
        .map(|address| (address.clone(), format!("smtp/{OTHER_HOP} <{address}>")))
        .collect();
    assert_eq!(changes(&page), expected);
    let page = site.inquire("", None);
    assert!(
        page.entries[0]
            .recipients
            .iter()
            .all(|recipient| recipient.host != OTHER_HOP),
        "{page:?}"
    );
    site.hop.defers.clear();
    site.wait(3);
    assert!(site.drained(), "all have gone the old way");
}

#[test]
fn rerouting_leaves_alone_what_stays_where_it_is() {
    let mut site = Site::new();
    let late: Vec<String> = (0..3).map(|n| format!("m{n}@member.example")).collect();
    site.hop.defers.extend(late.iter().cloned());
    site.hop.defers.insert("plain@x.example".to_owned());
    site.send(&["list", "plain"], "text");
    site.run("four are left", |site| site.queued() == 4);
    site.wait(1);
    let before = site.inquire("", None);
    let rounds = |site: &Site| site.net.log(0).matches("event=routed").count();
    assert_eq!(rounds(&site), 1, "the list");
    let page = site.inquire("", Some(Act::Reroute));
    assert_eq!((page.recipients, page.acted), (4, 0));
    let after = site.inquire("", None);
    let standing = |page: &zmailer::control::queue::Page| -> Vec<(Vec<u8>, u32, bool)> {
        let all = page.entries.iter().flat_map(|entry| &entry.recipients);
        all.map(|one| (one.address.clone(), one.attempts, one.next_ms > 0))
            .collect()
    };
    assert_eq!(standing(&after), standing(&before));
    assert_eq!(rounds(&site), 1, "nothing is recorded of what stays");
    site.hop.defers.clear();
    site.wait(3);
    assert!(site.drained());
    assert!(site.deliveries().values().all(|count| *count == 1));
}

#[test]
fn rerouting_changes_nothing_that_the_router_cannot_decide() {
    let mut site = Site::new();
    site.tell.borrow_mut().decided = true;
    for name in ["hold", "asked"] {
        site.hop.defers.insert(format!("{name}@x.example"));
    }
    site.send(&["hold"], "text");
    site.send(&["asked"], "text");
    site.run("both have been tried", |site| {
        site.net.log(0).matches("event=deferred").count() == 2
    });
    site.tell.borrow_mut().decided = false;
    site.tell.borrow_mut().other_hop = true;
    let page = site.try_out("", Act::Reroute);
    assert_eq!((page.acted, page.undecided), (1, 1));
    let page = site.inquire("", Some(Act::Reroute));
    assert_eq!((page.acted, page.undecided), (1, 1));
    let page = site.inquire("", None);
    let hosts = page.entries.iter().flat_map(|entry| &entry.recipients);
    let hosts: Vec<&str> = hosts.map(|recipient| &*recipient.host).collect();
    assert_eq!(hosts, ["198.51.100.9:25", OTHER_HOP]);
}

#[test]
fn the_front_door_asks_the_router() {
    let mut site = Site::new();
    site.tell.borrow_mut().verifies = true;
    let id = site.connect();
    site.say(
        id,
        "MAIL FROM:<error@x.example>\r\n",
        "550 5.1.1 no such user",
    );
    site.say(id, "MAIL FROM:<a@source.example>\r\n", "250");
    site.say(
        id,
        "RCPT TO:<error@x.example>\r\n",
        "550 5.1.1 no such user",
    );
    site.say(
        id,
        "RCPT TO:<hold@x.example>\r\n",
        "451 4.4.3 NS:member.example/mx",
    );
    site.say(id, "RCPT TO:<list@x.example>\r\n", "250");
    // One session waits, others do not.
    site.answering = false;
    site.net.client_send(id, b"RCPT TO:<ask@x.example>\r\n");
    for _ in 0..50 {
        site.turn();
    }
    assert_eq!(site.net.client_received(id), b"");
    let other = site.connect();
    site.say(other, "MAIL FROM:<a@source.example>\r\n", "250");
    site.say(other, "RCPT TO:<plain@x.example>\r\n", "250");
    assert!(site.answer_one());
    site.expect(id, "250");
    // Remembered: nobody is asked.
    site.say(other, "RCPT TO:<ask@x.example>\r\n", "250");
    assert!(site.questions.is_empty());
}

/// Mail is routed while it is on its way to the disk. What would be wrong: a result of the configuration before, for mail
/// that came to the disk under another one.
#[test]
fn a_new_configuration_counts_for_what_is_on_its_way_to_the_disk() {
    let mut seen = std::collections::BTreeSet::new();
    for turns in 0..60 {
        let mut site = Site::new();
        let id = site.connect();
        site.say(id, "MAIL FROM:<a@source.example>\r\n", "250");
        site.say(id, "RCPT TO:<plain@x.example>\r\n", "250");
        site.say(id, "DATA\r\n", "354");
        site.net.client_send(id, b"Subject: s\r\n\r\ntext\r\n.\r\n");
        for _ in 0..turns {
            site.turn();
        }
        let is_accepted = site.shared.all_metrics()[0].read().accepted > 0;
        let is_routed = !site.tell.borrow().routed.is_empty();
        site.reload();
        site.run("it is delivered", |site| !site.hop.taken.is_empty());
        let new = site.hop.taken[0].recipients == ["new@member.example"];
        assert_eq!(new, !is_accepted, "{turns} turns");
        seen.insert((is_accepted, is_routed));
    }
    let all = [(false, false), (false, true), (true, true)];
    assert!(seen.iter().eq(&all), "{seen:?}");
}

/// What could be lost: memory, and the time of others, when long lists come one behind the other.
#[test]
fn behind_a_long_list_mail_is_routed_when_it_is_on_the_disk() {
    const LISTS: usize = 110;
    let mut site = Site::new();
    let clients = [("list", LISTS), ("plain", 1)].map(|(name, count)| {
        let id = site.connect();
        site.say(id, "MAIL FROM:<a@source.example>\r\n", "250");
        for _ in 0..count {
            site.say(id, &format!("RCPT TO:<{name}@x.example>\r\n"), "250");
        }
        site.say(id, "DATA\r\n", "354");
        id
    });
    for id in clients {
        site.net.client_send(id, b"Subject: s\r\n\r\ntext\r\n.\r\n");
    }
    let mut routed = Vec::new();
    site.run("both are accepted", |site| {
        let accepted = site.shared.all_metrics()[0].read().accepted;
        if accepted == 0 {
            routed.clone_from(&site.tell.borrow().routed);
        }
        accepted == 2
    });
    assert_eq!(routed, vec!["list@x.example"; LISTS], "before the commit");
    let all = |site: &Site| site.deliveries().values().sum::<usize>();
    site.run("all is delivered", |site| all(site) == LISTS * MEMBERS + 1);
}
