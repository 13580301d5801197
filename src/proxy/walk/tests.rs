#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;

fn request(path: &str) -> Arc<Request> {
    Arc::new(Request::parse(path).unwrap())
}

struct Client {
    walk: Walk,
    infos: Infos,
    now: Instant,
}

impl Client {
    fn new() -> Self {
        let now = Instant::now();
        let budget = budget();
        Self { walk: Walk::new(now, &budget), infos: Infos::new(&budget), now }
    }

    /// Of what is here.
    fn finds(&mut self, path: &str) -> Vec<String> {
        names(&self.walk.asked(&request(path), &mut self.infos, self.now))
    }

    /// Of what is not here.
    fn asks(&mut self, path: &str) -> Vec<String> {
        let mut steps = self.finds(path);
        steps.extend(names(&self.walk.missed(&request(path), &mut self.infos)));
        steps
    }

    fn reads(&mut self, path: &str, file: &str) -> Vec<String> {
        let request = request(path);
        names(&self.walk.read(request.module().unwrap(), request.version().unwrap(), file.as_bytes()))
    }
}

fn names(steps: &[Step]) -> Vec<String> {
    let mark = |why| match why {
        Why::Certain => "",
        Why::Unpruned => "*",
        Why::Guessed => "?",
    };
    steps.iter().map(|s| format!("{}{}", s.request.escaped(), mark(s.why))).collect()
}

#[test]
fn a_zip_brings_the_mod_and_the_info_of_its_version_once() {
    let mut client = Client::new();
    assert_eq!(client.asks("/a.example/m/@v/v1.0.0.zip"), ["a.example/m/@v/v1.0.0.mod", "a.example/m/@v/v1.0.0.info"]);
    assert!(client.asks("/a.example/m/@v/v1.0.0.zip").is_empty());
}

#[test]
fn an_old_module_is_followed_to_the_last_and_each_version_once() {
    let mut client = Client::new();
    client.asks("/a.example/m/@v/v1.0.0.mod");
    let first = client.reads("/a.example/m/@v/v1.0.0.mod", "module a.example/m\ngo 1.16\nrequire b.example/n v1.0.0\n");
    assert_eq!(first, ["b.example/n/@v/v1.0.0.mod*"]);
    let below = b"module b.example/n\ngo 1.24\nrequire (\nc.example/o v1.2.0\na.example/m v1.0.0\nb.example/n v1.0.0\n)\n";
    assert_eq!(names(&client.walk.read_unpruned(below)), ["c.example/o/@v/v1.2.0.mod*"]);
    assert!(client.walk.read_unpruned(below).is_empty());
}

#[test]
fn a_pruned_module_gives_guesses_of_rising_versions() {
    let mut client = Client::new();
    let file = |v: &str| format!("module x.example/m\ngo 1.17\nrequire b.example/n {v}\n");
    assert_eq!(client.reads("/a.example/m/@v/v1.0.0.mod", &file("v1.5.0")), ["b.example/n/@v/v1.5.0.mod?"]);
    assert!(client.reads("/a.example/o/@v/v1.0.0.mod", &file("v1.4.0")).is_empty());
    assert_eq!(client.reads("/a.example/p/@v/v1.0.0.mod", &file("v1.10.0")), ["b.example/n/@v/v1.10.0.mod?"]);
}

#[test]
fn what_the_client_asked_for_by_itself_is_not_guessed_again_at_a_lower_version() {
    let mut client = Client::new();
    client.asks("/b.example/n/@v/v1.5.0.mod");
    client.asks("/a.example/m/@v/v1.0.0.mod");
    let lower = "module a.example/m\ngo 1.24\nrequire b.example/n v1.4.0\n";
    assert!(client.reads("/a.example/m/@v/v1.0.0.mod", lower).is_empty());
}

#[test]
fn what_comes_before_in_the_order_of_paths_is_not_guessed() {
    let mut client = Client::new();
    let mut asked = (0..OUT_OF_ORDER).map(|i| format!("/m.example/m{i:02}/@v/v1.0.0.mod")).collect::<Vec<_>>();
    // Two that were asked for at the same time.
    asked.swap(0, 1);
    let file =
        "module m.example/m\ngo 1.24\nrequire (\na.example/a v1.0.0\nm.example/m/v2 v2.0.0\nm.example/m08x v1.0.0\nz.example/z v1.0.0\n)\n";
    for path in &asked[1..] {
        client.asks(path);
    }
    let few =
        ["a.example/a/@v/v1.0.0.mod?", "m.example/m/v2/@v/v2.0.0.mod?", "m.example/m08x/@v/v1.0.0.mod?", "z.example/z/@v/v1.0.0.mod?"];
    assert_eq!(client.reads(&asked[1], file), few, "so few may be asked for in any order");
    client.asks(&asked[0]);
    let higher = file.replace(" v1.", " v1.1").replace(" v2.", " v2.1");
    assert_eq!(client.reads(&asked[1], &higher), ["m.example/m08x/@v/v1.10.0.mod?", "z.example/z/@v/v1.10.0.mod?"]);
}

#[test]
fn a_build_asks_for_the_zip_first_and_its_go_mod_is_not_followed() {
    let mut client = Client::new();
    client.asks("/a.example/m/@v/v1.0.0.zip");
    client.asks("/a.example/m/@v/v1.0.0.mod");
    assert!(client.reads("/a.example/m/@v/v1.0.0.mod", "module a.example/m\nrequire b.example/n v1.0.0\n").is_empty());
}

#[test]
fn what_does_not_parse_is_not_followed() {
    assert!(Client::new().reads("/a.example/m/@v/v1.0.0.mod", "module a.example/m\nrequire (\n").is_empty());
}

#[test]
fn the_first_info_of_a_walk_brings_those_of_the_selected_versions() {
    let mut client = Client::new();
    for m in ["a.example/m/@v/v1.9.0", "a.example/n/@v/v1.0.0", "a.example/m/@v/v1.10.0", "a.example/!o/@v/v2.0.0+incompatible"] {
        assert!(client.asks(&format!("/{m}.mod")).is_empty());
    }
    let infos = ["a.example/m/@v/v1.10.0.info", "a.example/n/@v/v1.0.0.info", "a.example/!o/@v/v2.0.0+incompatible.info"];
    assert_eq!(client.asks("/a.example/m/@v/v1.10.0.info"), infos);
    assert!(client.asks("/a.example/n/@v/v1.0.0.info").is_empty());
}

/// `go list -m all`: with what was pruned from the graph, of which some go.mod files are read then.
#[test]
fn a_list_of_the_whole_graph_brings_the_infos_of_all_that_is_required_and_follows_nothing_more() {
    let mut client = Client::new();
    for m in ["c.example/m", "d.example/m", "e.example/m", "f.example/m"] {
        let file = format!("/{m}/@v/v1.0.0.mod");
        client.asks(&file);
        client.reads(&file, "module m\ngo 1.24\nrequire (\nb.example/old v1.0.0\na.example/n v1.2.0\n)\n");
    }
    let asked = ["c.example/m", "d.example/m", "e.example/m", "f.example/m"].map(|m| format!("{m}/@v/v1.0.0.info"));
    assert_eq!(client.asks("/c.example/m/@v/v1.0.0.info"), asked);
    assert!(client.asks("/b.example/old/@v/v0.9.0.info").is_empty(), "a version that nothing needs may be what `go get` looks for");
    let all = [&["a.example/n/@v/v1.2.0.info".to_owned(), "b.example/old/@v/v1.0.0.info".to_owned()], &asked[..]].concat();
    assert_eq!(client.asks("/b.example/old/@v/v1.0.0.info"), all);
    assert!(client.asks("/a.example/n/@v/v1.2.0.info").is_empty());
    let old = "module b.example/old\nrequire z.example/z v1.0.0\n";
    client.asks("/b.example/old/@v/v1.0.0.mod");
    assert!(client.reads("/b.example/old/@v/v1.0.0.mod", old).is_empty());
}

/// `go get`: the graph, the versions that were asked for, and then what those require.
#[test]
fn a_walk_goes_on_below_versions_that_were_looked_for() {
    let mut client = Client::new();
    for i in 0..4 {
        client.asks(&format!("/a.example/m{i}/@v/v1.0.0.mod"));
    }
    for i in 0..WALK {
        assert!(client.asks(&format!("/b.example/n{i}/@v/v1.0.0.info")).is_empty());
    }
    client.asks("/b.example/n0/@v/v1.0.0.mod");
    let old = "module b.example/n0\nrequire z.example/z v1.0.0\n";
    assert_eq!(client.reads("/b.example/n0/@v/v1.0.0.mod", old), ["z.example/z/@v/v1.0.0.mod*"]);
}

#[test]
fn what_is_here_brings_nothing_until_something_is_not() {
    let mut client = Client::new();
    for i in 0..5 {
        client.finds(&format!("/a.example/m{i}/@v/v1.0.0.mod"));
    }
    assert!(client.finds("/a.example/m0/@v/v1.0.0.info").is_empty());
    assert_eq!(client.asks("/a.example/m1/@v/v1.0.0.info").len(), 5);
    assert!(client.finds("/a.example/m0/@v/v1.0.0.zip").is_empty());
    assert_eq!(client.asks("/a.example/m1/@v/v1.0.0.zip"), ["a.example/m0/@v/v1.0.0.zip", "a.example/m1/@v/v1.0.0.zip"]);
}

#[test]
fn another_walk_and_another_row_of_infos_begin_anew() {
    let mut client = Client::new();
    for i in 0..5 {
        client.finds(&format!("/a.example/m{i}/@v/v1.0.0.mod"));
    }
    client.finds("/a.example/m0/@v/v1.0.0.info");
    client.finds("/a.example/m0/@v/v1.0.0.zip");
    client.finds("/b.example/m0/@v/v1.0.0.info");
    assert_eq!(client.asks("/b.example/m0/@v/v1.0.0.zip"), ["b.example/m0/@v/v1.0.0.zip"]);
    client.finds("/b.example/m0/@v/v1.0.0.mod");
    assert!(client.asks("/b.example/m1/@v/v1.0.0.info").is_empty());
}

#[test]
fn three_mods_are_no_walk() {
    let mut client = Client::new();
    for i in 0..3 {
        client.asks(&format!("/a.example/m{i}/@v/v1.0.0.mod"));
    }
    assert!(client.asks("/a.example/m1/@v/v1.0.0.info").is_empty());
}

#[test]
fn the_first_zip_after_infos_brings_the_zips_of_exactly_those_in_that_order() {
    let mut client = Client::new();
    for v in ["v1.0.0", "v1.1.0", "v1.2.0"] {
        client.asks(&format!("/a.example/m/@v/{v}.info"));
    }
    let zips = ["a.example/m/@v/v1.0.0.zip", "a.example/m/@v/v1.1.0.zip", "a.example/m/@v/v1.2.0.zip"];
    assert_eq!(client.asks("/a.example/m/@v/v1.1.0.zip"), zips);
    assert!(!client.asks("/a.example/m/@v/v1.2.0.zip").iter().any(|step| step.ends_with(".zip")));
}

#[test]
fn infos_of_another_connection_or_before_another_question_bring_no_zips() {
    let mut client = Client::new();
    client.asks("/a.example/m/@v/v1.0.0.info");
    client.infos.clear();
    assert!(!client.asks("/a.example/m/@v/v1.0.0.zip").iter().any(|step| step.ends_with(".zip")));
    for between in ["/a.example/m/@v/list", "/a.example/n/@v/v1.0.0.mod", "/a.example/n/@v/main.info"] {
        client.asks("/a.example/o/@v/v1.0.0.info");
        client.asks(between);
        assert!(!client.asks("/a.example/o/@v/v1.0.0.zip").iter().any(|step| step.ends_with(".zip")), "{between}");
    }
}

#[test]
fn a_minute_of_silence_forgets() {
    let mut client = Client::new();
    for i in 0..4 {
        client.asks(&format!("/a.example/m{i}/@v/v1.0.0.mod"));
    }
    client.now += SILENCE + Duration::from_secs(1);
    assert!(client.asks("/a.example/m1/@v/v1.0.0.info").is_empty());
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut client = Client::new();
    for i in 0..MAX_REMEMBERED + 10 {
        client.asks(&format!("/a.example/m{i}/@v/v1.0.0.mod"));
        client.reads(&format!("/a.example/m{i}/@v/v1.0.0.mod"), &format!("module x\ngo 1.20\nrequire b.example/m{i} v1.0.0\n"));
    }
    assert_eq!((client.walk.mods.len(), client.walk.highest.len()), (MAX_REMEMBERED, MAX_REMEMBERED));
}

/// Names as no graph has them, and more of them than a client needs.
#[test]
fn nobody_can_fill_the_memory_with_names() {
    let mut client = Client::new();
    let long = ["x".repeat(MAX_NAME / 2).as_str(); 2].join("/");
    client.asks(&format!("/a.example/{long}/@v/v1.0.0.mod"));
    client.asks(&format!("/a.example/{long}/@v/v1.0.0.info"));
    client.asks(&format!("/a.example/{long}/@v/v1.0.0.zip"));
    let go_mod = format!("module a.example/m\ngo 1.16\nrequire b.example/{long} v1.0.0\n");
    assert!(client.reads("/a.example/m/@v/v1.0.0.mod", &go_mod).is_empty());
    let Client { walk, infos, .. } = &client;
    assert_eq!((walk.mods.len(), walk.listed.len(), walk.highest.len(), walk.built.len(), infos.asked.len()), (0, 0, 0, 0, 0));
    (0..MAX_REMEMBERED + 10).for_each(|i| drop(client.asks(&format!("/a.example/m{i}/@v/v1.0.0.info"))));
    assert_eq!((client.walk.listed.len(), client.infos.asked.len()), (MAX_REMEMBERED, MAX_INFOS));
}

#[test]
fn all_clients_together_have_a_limit_and_give_back_what_they_had() {
    let (now, row) = (Instant::now(), 20);
    let one = |i: usize| request(&format!("/a.example/m{i}/@v/v1.0.0.info"));
    let per_row = (0..row).map(|i| weight(one(i).module().unwrap(), one(i).version().unwrap())).sum::<u64>();
    let budget = Budget::new(per_row * 10);
    let connect = || {
        let (mut walk, mut infos) = (Walk::new(now, &budget), Infos::new(&budget));
        (0..row).for_each(|i| drop(walk.asked(&one(i), &mut infos, now)));
        (walk, infos)
    };
    let connections: Vec<_> = (0..100).map(|_| connect()).collect();
    // Each is noted for the client and for its connection.
    assert_eq!(connections.iter().map(|(_, infos)| infos.asked.len()).sum::<usize>(), 5 * row);
    drop(connections);
    let (mut walk, mut infos) = connect();
    assert_eq!(infos.asked.len(), row);
    walk.asked(&one(0), &mut infos, now + SILENCE * 2);
    assert_eq!((walk.listed.len(), infos.asked.len()), (1, 1), "silence forgets");
    let more: Vec<_> = (0..20).map(|_| connect()).collect();
    assert_eq!(more.iter().filter(|(_, infos)| infos.asked.len() == row).count(), 4);
}

#[test]
fn a_walk_that_is_over_keeps_no_memory() {
    let mut client = Client::new();
    for i in 0..1_000 {
        client.asks(&format!("/a.example/m{i}/@v/v1.0.0.mod"));
    }
    for i in 0..1_000 {
        client.asks(&format!("/a.example/m{i}/@v/v1.0.0.info"));
    }
    client.asks("/b.example/n/@v/v1.0.0.mod");
    let Walk { mods, listed, .. } = &client.walk;
    assert!(mods.len() == 1 && mods.capacity() < 100 && listed.capacity() < 100, "{}, {}", mods.capacity(), listed.capacity());
}

#[test]
fn nothing_follows_from_a_file_that_takes_long_to_read() {
    let file = |length: usize| format!("module a.example/m\ngo 1.16\nrequire b.example/n v1.0.0\n//{}\n", "x".repeat(length));
    for (length, follows) in [(100_000, true), (200_000, false)] {
        let mut client = Client::new();
        client.asks("/a.example/m/@v/v1.0.0.mod");
        assert_eq!(!client.reads("/a.example/m/@v/v1.0.0.mod", &file(length)).is_empty(), follows);
        assert_eq!(!client.walk.read_unpruned(file(length).replace("b.example", "c.example").as_bytes()).is_empty(), follows);
    }
}
