//! `GET /docs`: the description of the interface, to be read and tried.

use std::sync::LazyLock;

use axum::response::Response;
use maud::{Markup, html};
use serde_json::Value;

use super::openapi::document;
use crate::pages::layout::page;

static BODY: LazyLock<Markup> = LazyLock::new(|| body(&document()));

pub(super) async fn docs() -> Response {
    page("Interface", None, &BODY)
}

fn body(api: &Value) -> Markup {
    let mut calls = Vec::new();
    for (path, methods) in api["paths"].as_object().into_iter().flatten() {
        for (method, call) in methods.as_object().into_iter().flatten() {
            calls.push((path.as_str(), method.as_str(), call));
        }
    }
    let tags = ["lists", "catalogue", "users", "events", "admin", "operation"];
    html! {
        h1 { "Interface" }
        p { (text(&api["info"]["description"])) " The machine-readable description is " a href="/openapi.json" { "/openapi.json" } "." }
        @for tag in tags {
            h2 { (tag) }
            @for (path, method, call) in calls.iter().filter(|(.., call)| call["tags"][0] == tag) {
                (operation(path, method, call))
            }
        }
        h2 #schemas { "schemas" }
        @for (name, schema) in api["components"]["schemas"].as_object().into_iter().flatten() {
            details.card id={ "schema-" (name) } {
                summary { code { (name) } " " span.muted { (text(&schema["description"])) } }
                (fields(schema))
            }
        }
    }
}

fn operation(path: &str, method: &str, call: &Value) -> Markup {
    let body = &call["requestBody"]["content"]["application/json"];
    html! {
        details.card {
            summary { span.method.{ (method) } { (method) } " " code { (path) } " " span.muted { (text(&call["summary"])) } }
            @if let Some(about) = call["description"].as_str() { p { (about) } }
            @if call["security"].is_array() { p.muted { "Needs the admin key." } }
            @if let Some(parameters) = call["parameters"].as_array() {
                table {
                    tr { th { "parameter" } th { "type" } th { "meaning" } }
                    @for parameter in parameters {
                        tr { td { code { (text(&parameter["name"])) } } td { (kind(&parameter["schema"])) } td { (text(&parameter["description"])) } }
                    }
                }
            }
            @if body.is_object() { p { "Body: " (kind(&body["schema"])) } }
            table {
                tr { th { "status" } th { "type" } th { "meaning" } }
                @for (status, response) in call["responses"].as_object().into_iter().flatten() {
                    tr { td { (status) } td { @for (_, content) in response["content"].as_object().into_iter().flatten() { (kind(&content["schema"])) } } td { (text(&response["description"])) } }
                }
            }
            form.try data-method=(method) data-path=(path) {
                label { "Path " input name="path" value=(path); }
                @if call["security"].is_array() { label { "Key " input name="key" type="password" autocomplete="off"; } }
                @if body.is_object() { label { "Body " textarea name="body" rows="4" { (serde_json::to_string_pretty(&body["example"]).unwrap_or_default()) } } }
                button type="submit" { "Try it" }
                pre.output hidden {}
            }
        }
    }
}

fn fields(schema: &Value) -> Markup {
    let required = |name: &str| {
        schema["required"]
            .as_array()
            .is_some_and(|names| names.iter().any(|required| required == name))
    };
    html! {
        @if let Some(properties) = schema["properties"].as_object() {
            table {
                tr { th { "field" } th { "type" } th { "meaning" } }
                @for (name, field) in properties {
                    tr {
                        td { code { (name) } @if required(name) { span.muted title="required" { " *" } } }
                        td { (kind(field)) }
                        td { (text(&field["description"])) }
                    }
                }
            }
        } @else {
            p { (kind(schema)) }
        }
    }
}

/// A type in few words, with links to the schemas it names.
fn kind(schema: &Value) -> Markup {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        return html! { a href={ "#schema-" (name) } { code { (name) } } };
    }
    if let Some(value) = schema.get("const") {
        return html! { code { (value) } };
    }
    if let Some(values) = schema["enum"].as_array() {
        return html! { @for (place, value) in values.iter().enumerate() { @if place > 0 { " | " } code { (value) } } };
    }
    for variants in ["oneOf", "anyOf"] {
        if let Some(variants) = schema[variants].as_array() {
            return html! { @for (place, variant) in variants.iter().enumerate() { @if place > 0 { " | " } (kind(variant)) } };
        }
    }
    if schema["type"] == "array" {
        return html! { "list of " (kind(&schema["items"])) };
    }
    match &schema["type"] {
        Value::String(name) => html! { (name) },
        Value::Array(names) => {
            html! { (names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" | ")) }
        }
        _ => html! {},
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
