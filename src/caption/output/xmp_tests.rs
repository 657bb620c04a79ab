use super::*;

fn said(packet: &str, language: &str) -> Option<String> {
    description(packet.as_bytes(), language).unwrap()
}

fn packet(body: &str) -> String {
    format!(
        "<x:xmpmeta xmlns:x=\"adobe:ns:meta/\"><rdf:RDF xmlns:rdf=\"{RDF}\">{body}</rdf:RDF></x:xmpmeta>"
    )
}

#[test]
fn a_new_packet_has_the_description_in_its_language() {
    let one = with_description(None, "x-default", "a <dog> & \"cat\"\u{1}").unwrap();
    assert_eq!(said(&one, "x-default").as_deref(), Some("a <dog> & \"cat\""));
    assert!(one.contains("<rdf:li xml:lang=\"x-default\">a &lt;dog&gt; &amp;"), "{one}");
    assert!(
        one.starts_with("<?xpacket begin=\"\u{FEFF}\"") && one.ends_with("<?xpacket end=\"w\"?>")
    );
    let two = with_description(Some(one.as_bytes()), "de", "ein Hund").unwrap();
    assert_eq!(said(&two, "DE").as_deref(), Some("ein Hund"));
    assert_eq!(said(&two, "x-default").as_deref(), Some("a <dog> & \"cat\""));
    assert_eq!(said(&two, "fr"), None);
    // A language of its own is for everybody too, where nothing is yet.
    let german = with_description(None, "de", "ein Hund").unwrap();
    assert_eq!(said(&german, "x-default").as_deref(), Some("ein Hund"));
    assert!(german.find("x-default").unwrap() < german.find("\"de\"").unwrap());
    for empty in ["", "\u{FEFF}\n", "\0\0"] {
        assert_eq!(description(empty.as_bytes(), "x-default"), Ok(None));
        assert!(with_description(Some(empty.as_bytes()), "x-default", "a dog").is_ok());
    }
}

#[test]
fn whatever_form_a_packet_has_the_rest_of_it_stays() {
    let dc = format!("xmlns:dc=\"{DC}\"");
    let li = "<rdf:li xml:lang='x-default'>old &#x41;&amp;<![CDATA[<b>]]></rdf:li>";
    let cases = [
        (format!("<rdf:Description rdf:about='' {dc}><dc:description><rdf:Alt>{li}</rdf:Alt></dc:description></rdf:Description>"), Some("old A&<b>")),
        (format!("<rdf:Description rdf:about='' {dc} dc:description = 'old &gt;' dc:format='a dc:description=\"x\"' />"), Some("old >")),
        (format!("<rdf:Description rdf:about='' {dc}><dc:description>plain</dc:description></rdf:Description>"), Some("plain")),
        (format!("<rdf:Description rdf:about='' {dc}><dc:description><rdf:Alt/></dc:description></rdf:Description>"), None),
        (format!("<rdf:Description rdf:about='' {dc}><dc:description/></rdf:Description>"), None),
        ("<rdf:Description rdf:about='' xmlns:y='urn:y' y:Rating='5'/>".into(), None),
        ("<rdf:Description xmlns:dc='urn:other' dc:description='not ours' rdf:about=''><dc:description>nor this</dc:description></rdf:Description>".into(), None),
        (format!("<rdf:Description {dc}><dc:title><rdf:Alt><rdf:li xml:lang='x-default'>a title</rdf:li></rdf:Alt></dc:title></rdf:Description>"), None),
        (format!("<rdf:Description {dc}><dc:x><rdf:Description><dc:description>of a part</dc:description></rdf:Description></dc:x></rdf:Description>"), None),
        (String::new(), None),
    ];
    for (body, before) in cases {
        let old = packet(&body);
        assert_eq!(said(&old, "x-default").as_deref(), before, "{body}");
        let new = with_description(Some(old.as_bytes()), "x-default", "a dog").unwrap();
        assert_eq!(said(&new, "x-default").as_deref(), Some("a dog"), "{new}");
        for part in ["y:Rating='5'", "a title", "of a part", "nor this", "not ours", "dc:format"] {
            assert_eq!(old.contains(part), new.contains(part), "{part}: {new}");
        }
        assert_eq!(new.matches("a dog").count(), 1, "{new}");
        // Twice the same is the same.
        let again = with_description(Some(new.as_bytes()), "x-default", "a dog").unwrap();
        assert_eq!(again, new);
        let other = with_description(Some(old.as_bytes()), "de-AT", "ein Hund").unwrap();
        assert_eq!(said(&other, "de-at").as_deref(), Some("ein Hund"), "{other}");
        let everybody = before.unwrap_or("ein Hund");
        assert_eq!(said(&other, "x-default").as_deref(), Some(everybody), "{other}");
    }
}

#[test]
fn other_prefixes_are_as_good() {
    let old = format!(
        "<R:RDF xmlns:R=\"{RDF}\"><R:Description xmlns:D=\"{DC}\"><D:description><R:Alt><R:li \
         xml:lang=\"en\">old</R:li></R:Alt></D:description></R:Description></R:RDF>"
    );
    let new = with_description(Some(old.as_bytes()), "en", "new").unwrap();
    assert!(new.contains("<R:li xml:lang=\"en\">new</R:li>"), "{new}");
    assert!(new.contains("<R:li xml:lang=\"x-default\">new</R:li>"), "{new}");
    let bare = format!("<RDF xmlns=\"{RDF}\"><Description/></RDF>");
    let new = with_description(Some(bare.as_bytes()), "x-default", "new").unwrap();
    assert_eq!(said(&new, "x-default").as_deref(), Some("new"), "{new}");
}

#[test]
fn what_is_no_packet_is_not_touched() {
    let error = |bytes: &[u8]| with_description(Some(bytes), "x-default", "a dog").unwrap_err();
    assert_eq!(error(b"<svg/>"), XmpError::Foreign);
    assert_eq!(error(b"\xFF\xFE<\0"), XmpError::Encoding);
    assert!(matches!(error(b"<rdf:RDF"), XmpError::Damaged { .. } | XmpError::Foreign));
    assert!(matches!(error(packet("<a></b>").as_bytes()), XmpError::Damaged { .. }));
    assert!(matches!(
        error(format!("<r:RDF xmlns:r=\"{RDF}\">").as_bytes()),
        XmpError::Damaged { .. }
    ));
}
