//! The pages, as somebody who sits before a browser meets them.

use marquee_testkit::required;
use serde_json::json;

use crate::harness::{Marquee, eventually, get, post};
use crate::webdriver::Browser;

const USER: u64 = 4_242_424_242;

fn shown(browser: &Browser) -> Vec<u64> {
    browser
        .js("return [...document.querySelectorAll('#list [data-movie]')].map(card => Number(card.dataset.movie))")
        .as_array()
        .unwrap()
        .iter()
        .filter_map(serde_json::Value::as_u64)
        .collect()
}

/// Swaps two letters in the middle.
fn mistyped(title: &str) -> String {
    let mut letters: Vec<char> = title.chars().take_while(|letter| *letter != ',').collect();
    let middle = letters.len() / 2;
    letters.swap(middle - 1, middle);
    letters.into_iter().collect()
}

#[test]
fn somebody_searches_a_movie_likes_it_and_sees_the_list_change() {
    let Some(browser) = required(Browser::start(1200, 1400), "MARQUEE_REQUIRE_FOREIGN") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let mut marquee = Marquee::up(&folder.path().join("state"), None, &["--dataset", "synthetic"]);
    marquee.wait_ready();
    marquee.wait_model();
    let url = marquee.url();

    browser.go(&format!("{url}/ui/users/{USER}"));
    assert!(browser.text().contains("New here"), "{}", browser.text());
    let before = shown(&browser);
    assert_eq!(before.len(), 12);
    eventually("the status line says what is alive", || {
        browser
            .js("return document.getElementById('status').innerText")
            .as_str()?
            .contains("live")
            .then_some(())
    });
    browser.picture("new-user");

    // A movie that people know, typed wrongly.
    let (_, popular) = get(&format!("{url}/popular?k=3"));
    let wanted = &popular["items"][2];
    let (id, title) = (
        wanted["movie_id"].as_u64().unwrap(),
        wanted["title"].as_str().unwrap(),
    );
    browser.go(&format!("{url}/ui/discover?user={USER}"));
    browser.type_into("#query", &mistyped(title));
    let link = format!("#results a[href^='/ui/movies/{id}']");
    eventually("the movie is found", || {
        browser
            .js(&format!("return !!document.querySelector(\"{link}\")"))
            .as_bool()?
            .then_some(())
    });
    browser.picture("search");
    browser.click(&link);
    assert!(browser.text().contains("Similar"), "{}", browser.text());
    browser.picture("movie");
    browser.click(".actions button.like");
    eventually("the page says that the act counts", || {
        browser
            .js("return document.getElementById('notice').innerText")
            .as_str()?
            .contains("Liked")
            .then_some(())
    });

    browser.go(&format!("{url}/ui/users/{USER}"));
    let after = shown(&browser);
    assert_ne!(before, after);
    assert!(!after.contains(&id), "what was liked is not suggested again");
    assert!(browser.text().contains("because you liked"), "{}", browser.text());

    // One more, on the list itself: it changes in place.
    let first = after[0];
    browser.click(&format!("[data-movie='{first}'] button.like"));
    eventually("the list changes without another page", || {
        let now = shown(&browser);
        (!now.is_empty() && !now.contains(&first)).then_some(())
    });
    browser.picture("after-likes");
    let (status, user) = get(&format!("{url}/users/{USER}"));
    assert_eq!((status, &user["history"]), (200, &json!({"like": 2})), "{user}");
    let (_, list) = post(
        &format!("{url}/recommend"),
        json!({"user_id": USER, "explore": false}).to_string(),
    );
    assert_eq!(list["is_fallback"], false, "{list}");
    assert!(marquee.interrupt().success());
}
