//! The shipped scripts: what routes mail when the administrator has not written a script.
//!
//! They are text in the routing language, one file a question; `router.cf` is where to begin
//! reading. They are loaded in the order of [`FILES`], as if they were one file, but diagnostics
//! name each by its own name. Variables set before they are loaded are the settings listed in
//! `settings.cf`. Whoever compiles them reports what is wrong; here nothing can fail.

/// Name and text of each file, in the order they are loaded.
pub const FILES: [(&str, &str); 17] = [
    ("settings.cf", include_str!("stock/settings.cf")),
    ("toplevels.cf", include_str!("stock/toplevels.cf")),
    ("databases.cf", include_str!("stock/databases.cf")),
    ("attributes.cf", include_str!("stock/attributes.cf")),
    ("canonical.cf", include_str!("stock/canonical.cf")),
    ("fulladdress.cf", include_str!("stock/fulladdress.cf")),
    ("localpart.cf", include_str!("stock/localpart.cf")),
    ("lists.cf", include_str!("stock/lists.cf")),
    ("listservers.cf", include_str!("stock/listservers.cf")),
    ("users.cf", include_str!("stock/users.cf")),
    ("routes.cf", include_str!("stock/routes.cf")),
    ("router.cf", include_str!("stock/router.cf")),
    ("uucp.cf", include_str!("stock/uucp.cf")),
    ("headers.cf", include_str!("stock/headers.cf")),
    ("crossbar.cf", include_str!("stock/crossbar.cf")),
    ("server.cf", include_str!("stock/server.cf")),
    ("site.cf", include_str!("stock/site.cf")),
];
