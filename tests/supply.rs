//! Dependencies: licences, bans and sources as required by deny.toml, and the SBOM. `make deny`
//! runs the full tool.

use std::{collections::BTreeMap, collections::BTreeSet, fs, path::Path, process::Command};

use serde_json::Value;

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

fn file(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
        .unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn table(path: &str) -> toml::Table {
    file(path).parse().unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// A list of texts in deny.toml.
fn list(section: &str, key: &str) -> Vec<String> {
    let deny = table("deny.toml");
    let list = deny[section][key].as_array().expect("a list");
    let text = |v: &toml::Value| v.get("crate").unwrap_or(v).as_str().expect("a text").to_owned();
    list.iter().map(text).collect()
}

fn output(program: &str, arguments: &[&str]) -> String {
    let done =
        Command::new(program).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let done = done.unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(
        done.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    String::from_utf8(done.stdout).expect("text")
}

/// `(name, version)` -> licence of everything that is built or tested on this target.
fn packages(target: &str) -> BTreeMap<(String, String), String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let text = output(
        &cargo,
        &["metadata", "--locked", "--format-version", "1", "--filter-platform", target],
    );
    let metadata: Value = serde_json::from_str(&text).expect("JSON");
    let of = |p: &Value, member: &str| p[member].as_str().unwrap_or_default().to_owned();
    let all = metadata["packages"].as_array().expect("packages");
    all.iter().map(|p| ((of(p, "name"), of(p, "version")), of(p, "license"))).collect()
}

/// The host's target, whose dependencies Cargo has fetched already.
const TARGET: &str = match cfg!(target_arch = "aarch64") {
    true => "aarch64-unknown-linux-gnu",
    false => "x86_64-unknown-linux-gnu",
};

/// Whether an SPDX expression can be satisfied with these licences; `/` is an old way to write OR.
/// An exception (`WITH`) and anything unknown is not satisfied.
fn satisfied(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut words: Vec<&str> = spaced.split_whitespace().rev().collect();
    let answer = any(&mut words, allowed);
    answer && words.is_empty()
}

fn any(words: &mut Vec<&str>, allowed: &[String]) -> bool {
    let mut answer = all(words, allowed);
    while words.pop_if(|word| *word == "OR").is_some() {
        answer |= all(words, allowed);
    }
    answer
}

fn all(words: &mut Vec<&str>, allowed: &[String]) -> bool {
    let mut answer = one(words, allowed);
    while words.pop_if(|word| *word == "AND").is_some() {
        answer &= one(words, allowed);
    }
    answer
}

fn one(words: &mut Vec<&str>, allowed: &[String]) -> bool {
    match words.pop() {
        Some("(") => any(words, allowed) & (words.pop() == Some(")")),
        Some(licence) if words.last() == Some(&"WITH") => {
            let exception = words.split_off(words.len().saturating_sub(2));
            allowed
                .iter()
                .any(|a| *a == format!("{licence} WITH {}", exception.first().unwrap_or(&"?")))
        }
        Some(licence) => allowed.iter().any(|a| a == licence),
        None => {
            // An operand is missing, so the whole expression is not satisfied.
            words.push("?");
            false
        }
    }
}

#[test]
fn license_expressions_are_parsed_like_spdx() {
    let allowed = ["MIT", "ISC"].map(str::to_owned);
    for expression in [
        "MIT",
        "GPL-3.0 OR MIT",
        "MIT/Apache-2.0",
        "ISC AND (GPL-2.0 OR MIT)",
        "(MIT OR X) AND (ISC)",
        "X WITH E OR MIT",
    ] {
        assert!(satisfied(expression, &allowed), "{expression}");
    }
    for bad in [
        "",
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "GPL-2.0 OR MIT AND GPL-3.0",
        "MIT WITH X",
        "(MIT",
        "MIT ISC",
        "MIT OR",
    ] {
        assert!(!satisfied(bad, &allowed), "{bad}");
    }
}

#[test]
fn every_licence_is_allowed() {
    let allowed = list("licenses", "allow");
    let packages = packages(TARGET);
    assert!(packages.len() > 100, "only {} packages were checked", packages.len());
    let bad: Vec<_> =
        packages.iter().filter(|(_, licence)| !satisfied(licence, &allowed)).collect();
    assert!(bad.is_empty(), "not allowed by deny.toml: {bad:#?}");
    // The list itself must contain only permissive licences.
    let copyleft =
        ["GPL", "AGPL", "LGPL", "MPL", "EUPL", "CDDL", "EPL", "SSPL", "OSL", "BUSL", "CC-BY-SA"];
    let hard: Vec<_> =
        allowed.iter().filter(|a| copyleft.iter().any(|c| a.starts_with(c))).collect();
    assert!(hard.is_empty(), "deny.toml allows {hard:?}");
}

#[test]
fn every_dependency_has_an_allowed_source() {
    let lock = table("Cargo.lock");
    let all = lock["package"].as_array().expect("packages");
    let text =
        |p: &toml::Value, member: &str| p.get(member).and_then(|v| v.as_str().map(str::to_owned));
    let own = ["sse-gateway", "loadtest"];
    let bad: Vec<_> = all
        .iter()
        .filter(|p| match text(p, "source") {
            Some(source) => source != CRATES_IO || text(p, "checksum").is_none(),
            None => !own.contains(&text(p, "name").unwrap_or_default().as_str()),
        })
        .collect();
    assert!(bad.is_empty(), "not from crates.io: {bad:#?}");
    let banned = list("bans", "deny");
    assert!(!banned.is_empty());
    // Like cargo-deny, ignores packages that are only built for other systems.
    let found: Vec<_> =
        packages(TARGET).into_keys().filter(|(name, _)| banned.contains(name)).collect();
    assert!(found.is_empty(), "banned by deny.toml: {found:?}");
}

#[test]
fn sbom_lists_the_contents_of_a_release() {
    let text = output(".ci/sbom", &["--target", TARGET]);
    assert_eq!(
        text,
        output(".ci/sbom", &["--target", TARGET]),
        "the same sources give the same bytes"
    );
    let bom: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((&bom["bomFormat"], &bom["specVersion"]), (&"CycloneDX".into(), &"1.5".into()));
    assert_eq!(bom["version"], 1);
    let serial = bom["serialNumber"].as_str().expect("a serial number");
    assert!(
        serial.strip_prefix("urn:uuid:").is_some_and(|u| u.parse::<uuid::Uuid>().is_ok()),
        "{serial}"
    );
    let own = &bom["metadata"]["component"];
    assert_eq!(
        (&own["name"], &own["version"]),
        (&"sse-gateway".into(), &env!("CARGO_PKG_VERSION").into())
    );
    let licences = packages(TARGET);
    let lock = table("Cargo.lock");
    let checksum = |name: &str, version: &str| {
        let all = lock["package"].as_array().expect("packages").iter();
        let mut found = all
            .filter(|p| p["name"].as_str() == Some(name) && p["version"].as_str() == Some(version));
        found
            .next()
            .and_then(|p| p.get("checksum")?.as_str().map(str::to_owned))
            .expect("a checksum")
    };
    let components = bom["components"].as_array().expect("components");
    let mut scopes = BTreeMap::new();
    for component in components {
        let member = |name: &str| {
            component[name].as_str().unwrap_or_else(|| panic!("no {name}: {component}"))
        };
        let (name, version) = (member("name"), member("version"));
        assert_eq!(member("purl"), format!("pkg:cargo/{name}@{version}"));
        assert_eq!((member("type"), member("bom-ref")), ("library", member("purl")));
        let licence = &licences[&(name.to_owned(), version.to_owned())];
        let words =
            |text: &str| text.replace('/', " OR ").split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(
            component["licenses"][0]["expression"].as_str(),
            Some(words(licence).as_str()),
            "{name}"
        );
        let hash = &component["hashes"][0];
        assert_eq!(
            (hash["alg"].as_str(), hash["content"].as_str()),
            (Some("SHA-256"), Some(&*checksum(name, version)))
        );
        assert!(
            scopes.insert((name, version), member("scope")).is_none(),
            "{name} {version} twice"
        );
    }
    let scope = |wanted: &str| {
        let mut of = scopes.iter().filter(|((name, _), _)| *name == wanted);
        of.next().map(|(_, scope)| *scope)
    };
    let manifest = table("Cargo.toml");
    for name in manifest["dependencies"].as_table().expect("dependencies").keys() {
        assert_eq!(scope(name), Some("required"), "{name}");
    }
    assert_eq!(
        (scope("serde_derive"), scope("cc")),
        (Some("excluded"), Some("excluded")),
        "they only help to build"
    );
    assert_eq!(
        (scope("aws-lc-sys"), scope("hdrhistogram")),
        (Some("required"), None),
        "no tool of the tests"
    );
    // The whole graph: every dependency is a component, and every component is a dependency.
    let refs: BTreeSet<&str> = components.iter().filter_map(|c| c["bom-ref"].as_str()).collect();
    let graph = bom["dependencies"].as_array().expect("dependencies");
    let on = |d: &Value| {
        d["dependsOn"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|r| r.as_str().unwrap().to_owned())
            .collect()
    };
    let reached: BTreeSet<String> = graph.iter().flat_map(|d| -> Vec<String> { on(d) }).collect();
    assert_eq!(reached.iter().map(String::as_str).collect::<BTreeSet<_>>(), refs);
    assert_eq!(graph.len(), components.len() + 1);
}
