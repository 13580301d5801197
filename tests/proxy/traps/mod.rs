//! Every line of the protocol that a cache can get wrong, and the test that fails when it does.
//!
//! | what clients rely on | test |
//! |---|---|
//! | `%21` and `!` are one letter; `%40v`, `%40latest` | `paths::both_spellings_…`, `paths::percent_40_is_an_at_sign` |
//! | upper-case versions and branches | `paths::upper_case_letters_of_versions_and_branches_…` |
//! | `+incompatible`, `%2B` | `paths::an_incompatible_version_is_one_object_…` |
//! | raw upper case, double encoding, traversal | `paths::raw_upper_case_double_encoding_and_traversal_…` |
//! | GET and HEAD, else 405 | `paths::head_has_the_headers_of_get_…`, `paths::other_methods_are_405_…` |
//! | an error that is not text costs the connection | `paths::errors_of_every_kind_are_text_and_keep_the_connection` |
//! | the URL of a proxy may have a path | `paths::an_upstream_may_have_a_path_and_a_trailing_slash` |
//! | an upstream that compresses | `paths::an_upstream_is_asked_for_plain_bytes_…`, `paths::an_upstream_that_compresses_all_the_same_…` |
//! | a type or an encoding that is none | `files::what_a_store_of_files_calls_its_bytes_…` |
//! | `.info`, `.mod`, `.zip` are independent | `files::info_mod_and_zip_exist_independently_of_each_other` |
//! | a `.mod` that does not parse, a time in another zone | `files::a_mod_that_does_not_parse_…` |
//! | `.info` of a branch, a hash, a `+meta` changes | `files::a_branch_a_hash_and_a_version_with_build_data_…` |
//! | an answer for another version is a 502 | the table: `faults` |
//! | an upstream's text on 404 and 410 unchanged; HTML never | `files::an_upstreams_own_words_…`, the table |
//! | each 4xx is asked twice over TLS | `files::an_absence_that_is_asked_for_twice_…`, `files::an_absence_is_forgotten_…` |
//! | the `list` of a module cache is not the upstream's | `lists::the_list_file_of_a_module_cache_is_never_served` |
//! | a new tag within the TTL | `lists::a_new_tag_is_seen_…`, `lists::a_list_older_than_its_ttl_…` |
//! | a list that did not change costs a 304 | `lists::a_list_that_did_not_change_…`, `lists::a_tag_is_sent_…` |
//! | stale on a fault, not on 404 | `lists::an_old_list_is_served_as_stale_…` |
//! | no pseudo-versions in a list, unless it has nothing else | `lists::pseudo_versions_…`, `lists::a_folder_of_files_is_an_upstream_…`, `lists::a_list_of_nothing_but_…` |
//! | a list without an upstream | `lists::offline_a_list_is_made_of_the_tags_that_are_cached` |
//! | the prefixes of a package's path are asked for as modules | `packages::a_package_of_a_cached_module_is_no_module_…` |
//! | an empty 200 list makes the client ask `@latest` | `lists::an_empty_list_is_a_200_…` |
//! | another database: 404, no outbound call | `sumdb::another_database_is_404_…` |
//! | the database's name may hold slashes | `sumdb::supported_is_answered_here_…` |
//! | look-ups and tiles for ever, `latest` never | `sumdb::look_ups_and_tiles_…` |
//! | a private look-up is 403 | `sumdb::a_look_up_of_a_private_module_is_403_…` |
//! | toolchains are never private, and never too large | `sumdb::toolchains_are_never_private`, `tests/clients` |
//! | who is asked for the database | `sumdb::the_database_is_asked_at_its_url_else_…` |
//! | a fault of the database is no absence | `sumdb::an_outage_of_the_database_…` |
//! | redirects to other hosts, without the credential | `redirects::a_redirect_to_another_host_…`, `redirects::a_redirect_to_another_port_…` |
//! | a signed URL is neither logged nor a key | `redirects::a_signed_url_is_neither_logged_…` |
//! | the list of redirect hosts | `redirects::a_redirect_to_a_host_that_is_not_declared_…` |
//! | never from https to http | `redirects::a_redirect_from_https_to_http_is_refused` |
//! | only 200 is success | `files::a_success_that_is_no_200_…`, the table |
//! | the mirror may think for 58 s | `src/config/timeouts.rs`: `a_public_mirror_may_think_…` |
//! | reset, short, corrupt: never a complete wrong 200 | the table, `transfers::a_broken_zip_…` (two) |
//! | never by closing a body without length | `transfers::an_http_1_0_client_gets_…` |
//! | megabytes of go.mod | `long_answers` (two) |
//! | a bad transfer ends by its framing | `transfers::a_zip_of_unknown_length_…` |
//! | one download however many ask | `transfers::a_hundred_requests_…`, `transfers::a_thousand_clients_…` |
//! | … and what is on disk is a hit | `transfers::a_request_that_finds_the_file_on_disk_…` |
//! | 500 MiB + 1 | `transfers::five_hundred_mib_and_one_byte_are_refused` |
//! | 300 MiB with flat memory, to slow readers | `transfers::a_zip_of_300_mib_…` |
//! | a client that leaves | `transfers::clients_that_leave_cancel_no_download`, `transfers::a_download_goes_on_…`, `metrics::a_client_that_leaves_…` |
//! | SIGTERM drains | `transfers::sigterm_lets_running_answers_end_…`, `sigterm::sigterm_does_not_wait_for_…`, `sigterm::what_was_answered_before_…` |
//! | 429, 503, time-outs, 401, 403: never 404; `,` and `\|` | the table, `go_client::an_outage_ends_the_build_…` |
//! | the end of an outage fails no build | `outages::all_that_is_asked_for_at_once_…` |
//! | 404 and 410 go on to the client's next proxy | `go_client::an_absence_lets_the_go_command_ask_its_next_proxy` |
//! | a credential swapped during a download | `changes::a_credential_that_is_swapped_…` |
//! | a new credential that is refused | `changes::a_new_credential_that_is_refused_…`, `changes::a_credential_that_was_withdrawn_…` |
//! | an invalid new credential or configuration | `changes::a_malformed_new_credential_…` |
//! | files that can't be read for a moment | `changes::files_that_cannot_be_read_…` |
//! | … and after it the transfer breaks | `changes::a_download_that_breaks_after_a_rotation_…` |
//! | a changed chain of upstreams | `changes::what_one_upstream_does_not_have_is_asked_of_the_one_that_takes_its_place` |
//! | a full disk passes through | `disk::a_full_disk_…`, `disk::a_read_only_disk_…` |
//! | … and one that damages what it has | `disk::what_breaks_on_the_disk_…`, `disk::what_another_process_moves_…` |
//! | one volume, two replicas | `tests/api.rs`: `wrong_manifests_are_refused_…` |
//! | the order of a client's requests, and what each command asks for | `look_ahead`, `tests/clients` |
//! | what a zip may be, `h1:` | `tests/gomod_differential`, and the tests beside `src/gomod/zip_*.rs` |
//! | what the checksum database contradicts | `tests/checksums.rs` |

mod changes;
mod disk;
mod files;
pub(crate) mod lists;
mod long_answers;
mod outages;
mod packages;
mod parts;
mod paths;
mod redirects;
mod sigterm;
mod sumdb;
mod transfers;
