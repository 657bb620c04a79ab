//! The rules of the lexer in [`super::ptb`].

use std::borrow::Cow;

/// One kind of token.
pub(super) struct Rule {
    /// What it matches, with what must follow.
    pub(super) pattern: String,
    /// Where in the match the token ends.
    pub(super) end: End,
    /// How the token is written.
    pub(super) text: Text,
}

/// Where in its match a token ends.
#[derive(Clone, Copy)]
pub(super) enum End {
    /// At the end.
    Match,
    /// This many characters before the end.
    Before(usize),
    /// This many characters before the first apostrophe.
    BeforeApostrophe(usize),
    /// After the first letter.
    Letter,
}

/// How a token is written.
#[derive(Clone, Copy)]
pub(super) enum Text {
    /// As it stands.
    Same,
    /// Not at all.
    Nothing,
    /// As this.
    As(&'static str),
    /// With plain apostrophes, without soft hyphens, `&amp;` as `&`.
    Plain,
    /// With spaces that do not break.
    Spaces,
    /// With round brackets by name.
    Brackets,
    /// Both of the former.
    SpacesAndBrackets,
    /// Quotation marks as ticks.
    Quotes,
    /// Currency signs as those the treebank has.
    Currency,
}

impl End {
    pub(super) fn of(self, matched: &str) -> usize {
        let before = |text: &str, characters: usize| match characters.checked_sub(1) {
            None => text.len(),
            Some(skipped) => text.char_indices().rev().nth(skipped).map_or(0, |(at, _)| at),
        };
        match self {
            Self::Match => matched.len(),
            Self::Before(characters) => before(matched, characters),
            Self::BeforeApostrophe(characters) => {
                let apostrophe =
                    ["&apos;", "'", "\u{91}", "\u{92}", "\u{2018}", "\u{2019}", "\u{201b}"]
                        .iter()
                        .filter_map(|apostrophe| matched.find(apostrophe))
                        .min()
                        .unwrap_or(matched.len());
                before(&matched[..apostrophe], characters)
            }
            Self::Letter => 1,
        }
    }
}

impl Text {
    pub(super) fn of(self, token: &str) -> Option<Cow<'_, str>> {
        Some(match self {
            Self::Same => Cow::Borrowed(token),
            Self::Nothing => return None,
            Self::As(text) => Cow::Borrowed(text),
            Self::Plain => plain(token),
            Self::Spaces => Cow::Owned(spaces(token)),
            Self::Brackets => Cow::Owned(brackets(token)),
            Self::SpacesAndBrackets => Cow::Owned(brackets(&spaces(token))),
            Self::Quotes => Cow::Owned(ticks(token)),
            Self::Currency => match token {
                "\u{a2}" => Cow::Borrowed("cents"),
                "\u{a3}" => Cow::Borrowed("#"),
                "\u{80}" | "\u{a4}" | "\u{20a0}" | "\u{20ac}" => Cow::Borrowed("$"),
                other => Cow::Borrowed(other),
            },
        })
    }
}

fn plain(token: &str) -> Cow<'_, str> {
    let special = |c| {
        matches!(c, '&' | '\u{ad}' | '\u{91}' | '\u{92}' | '\u{2018}' | '\u{2019}' | '\u{201b}')
    };
    if !token.contains(special) {
        return Cow::Borrowed(token);
    }
    let named = token.replace("&amp;", "&").replace("&AMP;", "&").replace("&apos;", "'");
    let plain: String = named
        .chars()
        .filter(|c| *c != '\u{ad}')
        .map(|c| match c {
            '\u{91}' | '\u{2018}' | '\u{201b}' => '`',
            '\u{92}' | '\u{2019}' => '\'',
            other => other,
        })
        .collect();
    // A soft hyphen alone is a hyphen.
    Cow::Owned(if plain.is_empty() { "-".to_owned() } else { plain })
}

fn ticks(token: &str) -> String {
    let mut ticks = String::new();
    for c in token.chars() {
        match c {
            '\u{91}' | '\u{2018}' | '\u{201b}' | '\u{2039}' => ticks.push('`'),
            '\u{92}' | '\u{2019}' | '\u{203a}' => ticks.push('\''),
            '\u{93}' | '\u{ab}' | '\u{201c}' => ticks.push_str("``"),
            '\u{94}' | '\u{bb}' | '\u{201d}' => ticks.push_str("''"),
            other => ticks.push(other),
        }
    }
    ticks
}

fn spaces(token: &str) -> String {
    token.replace(' ', "\u{a0}")
}

fn brackets(token: &str) -> String {
    let mut named = String::with_capacity(token.len() + 8);
    for c in token.chars() {
        match c {
            '(' => named.push_str("-LRB-"),
            ')' => named.push_str("-RRB-"),
            other => named.push(other),
        }
    }
    named
}

/// Letters: those of Unicode 6.1 in the basic plane.
const LETTER: &str =
    r"[\p{L}&&\p{Age=6.1}&&[\x{0}-\x{FFFF}]--[\x{19B0}-\x{19C0}\x{19C8}\x{19C9}\x{1CF2}\x{1CF3}]]";
/// Marks and other characters that count as letters of a word, but not beside a digit.
const MARK: &str = r"\x{AD}\x{2C2}-\x{2C5}\x{2D2}-\x{2DF}\x{2E5}-\x{2EB}\x{2ED}\x{2EF}-\x{36F}\x{375}\x{378}\x{379}\x{384}\x{385}\x{3F6}\x{483}-\x{487}\x{55A}-\x{55F}\x{591}-\x{5BD}\x{5BF}\x{5C1}\x{5C2}\x{5C4}\x{5C5}\x{5C7}\x{615}-\x{61A}\x{64B}-\x{65E}\x{670}\x{6D6}-\x{6E4}\x{6E7}-\x{6ED}\x{6FD}\x{6FE}\x{70F}\x{711}\x{730}-\x{74C}\x{7A6}-\x{7B0}\x{7EB}-\x{7F3}\x{900}-\x{903}\x{93C}\x{93E}-\x{94E}\x{951}-\x{955}\x{962}\x{963}\x{981}-\x{983}\x{9BC}\x{9BE}-\x{9C4}\x{9C7}\x{9C8}\x{9CB}-\x{9CD}\x{9D7}\x{9E2}\x{9E3}\x{A01}-\x{A03}\x{A3C}\x{A3E}-\x{A4F}\x{A81}-\x{A83}\x{ABC}\x{ABE}-\x{ACF}\x{B82}\x{BBE}-\x{BC2}\x{BC6}-\x{BC8}\x{BCA}-\x{BCD}\x{C01}-\x{C03}\x{C3E}-\x{C56}\x{D3E}-\x{D44}\x{D46}-\x{D48}\x{E31}\x{E34}-\x{E3A}\x{E47}-\x{E4E}\x{EB1}\x{EB4}-\x{EBC}\x{EC8}-\x{ECD}";
/// Signs that are a token each.
const SYMBOL: &str = r"[+%&~^|\\/_@$#<=>`'*\x{A1}\x{A5}-\x{A9}\x{AC}\x{AE}-\x{B4}\x{B6}-\x{B9}\x{BF}\x{D7}\x{F7}\x{37E}\x{387}\x{589}\x{5BE}\x{5C0}\x{5C3}\x{5C6}\x{5F3}\x{5F4}\x{600}-\x{603}\x{606}-\x{60C}\x{614}\x{61B}\x{61E}\x{61F}\x{66A}\x{66D}\x{6D4}\x{700}-\x{70D}\x{7F6}-\x{7F8}\x{964}\x{965}\x{E3F}\x{E4F}\x{1FBD}\x{2016}\x{2017}\x{201A}\x{201E}-\x{2023}\x{2030}-\x{2038}\x{203B}\x{203E}-\x{2042}\x{2044}\x{2070}\x{2074}-\x{207E}\x{2080}-\x{208E}\x{20A4}\x{2100}\x{2101}\x{2103}-\x{2106}\x{2108}\x{2109}\x{2114}\x{2116}-\x{2118}\x{211E}-\x{2123}\x{2125}\x{2127}\x{2129}\x{212E}\x{213A}\x{213B}\x{2140}-\x{2144}\x{214A}-\x{214D}\x{214F}\x{2155}-\x{215E}\x{2190}-\x{2BFF}\x{3001}\x{3002}\x{3012}\x{30FB}\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF20}\x{FF3B}-\x{FF40}\x{FF5B}-\x{FF65}\x{FFE0}\x{FFE1}\x{FFE5}\x{FFE6}]";
/// An apostrophe.
const APOS: &str = r"(?:['\x{92}\x{2019}]|&apos;)";
/// An apostrophe or another mark that is used as one within a name.
const APOSTROPHES: &str = r"(?:['`\x{91}\x{92}\x{2018}\x{2019}\x{201B}]|&apos;)";
/// Abbreviations that keep their full stop, also before a single letter.
const ABBREVIATIONS: &str = "(?i:Ala?|Apr|Ariz|Assn|Aug|Bancorp|Bhd|Bldg|Blvd|Bros|Calif|Cos?|Colo|Conn|Corp|Ct|Dak|Dec|Ed\\.D|Esq|Est|Etc|Ext|Feb|Fla|Fri|Ga|Inc|Ind|Intl|Jan|Jr|Jul|Jun|Kans?|Ky|Ltd|Mar|Md|Mich|Minn|Mo|Mon|Mont|Neb|Nev|Nov|Oct|Okla|Penn|Ph\\.D|Plc|Rd|Rt|Sept?|Seq|Sq|Sr|Sys|Tel|Tenn|Thu|Thurs|Tues?|Univ|Va|Vt|Wed|Wisc?|Wyo)|[Pp]{1,2}t[ey]s?|(?:A(?i:rk|z)|D(?i:el)|I(?i:ll)|L(?i:a)|M(?i:ass|iss)|O(?i:re)|P(?i:a)|T(?i:ex)|W(?i:ash))";
/// Abbreviations that keep their full stop and are names' titles or the like.
const TITLES: &str = "(?i:a\\.k\\.a|Adj|Adm|Adv|Alex|Assoc|Asst|Attys?|Ave|Brig|Capt|Cf|Cie|Co?mdr|Col|Cpl|Dept|Det|Drs?|Elec|Ens|Ft|Gen|Govs?|Hon|Insp|Invt|Jos|Lieut|Lt|Maj|Messrs|Mlle|Mme|Mrs?|Ms|Msgr|Mt|Natl|Pfc|Ph|Pres|Profs?|Pvt|Reps?|Rev|Sens?|Sfc|Sgt|Spc|Ste?|Supts?|Treas|Vs|Wm)|[Mm]fg|[Mm]tg";
/// Abbreviations that keep their full stop before a number.
const BEFORE_NUMBER: &str = "(?i:art|ca|figs?|nos?|op|pp|prop)";

/// Words that show, by their capital, that the full stop before them ends a sentence.
const STARTERS: &str = "A About According Additionally After An As At But Earlier He Her Here However If In It Last Many More Mr. Ms. Now Once One Other Our She Since So Some Such That The Their Then There These They This We What When While Yet You";

/// The rules; of two that match equally much the first wins.
pub(super) fn rules() -> Vec<Rule> {
    let letter = LETTER;
    let word_letter = format!("(?:[{LETTER}{MARK}]|&[aeiouAEIOU](?:acute|grave|uml);)");
    let digit = r"[\p{Nd}&&\p{Age=6.1}&&[\x{0}-\x{FFFF}]]";
    let word_part = format!("{word_letter}(?:{word_letter}|{digit})*");
    let word = format!("{word_part}(?:[.!?]{word_part})*");
    let number = format!(r"(?:{digit}+|{digit}*(?:[.:,\x{{AD}}\x{{66B}}\x{{66C}}]{digit}+)+)");
    let acronym = r"[A-Za-z](?:\.[A-Za-z])+";
    let hyphenated = format!(
        r"[A-Za-z0-9][A-Za-z0-9.,\x{{AD}}]*(?:[-\x{{58A}}\x{{2010}}\x{{2011}}](?:[A-Za-z0-9\x{{AD}}]+|{acronym}\.))+"
    );
    let plain = format!("[{letter}{digit}]");
    let thing = format!(
        r"(?:[dDoOlL]{APOSTROPHES}{plain}{{2}}{plain}*|{plain}+)(?:[-_\x{{58A}}\x{{2010}}\x{{2011}}](?:[dDoOlL]{APOSTROPHES}{plain}{plain}+|{plain}+))*"
    );
    let company = "[A-Z]+(?:(?:[+&]|&amp;)[A-Z]+)+";
    let clitic = format!("{APOS}(?i:[msd]|re|ve|ll)");
    let not = format!("(?i:n{APOSTROPHES}t)");
    let host_end = r"[^ \t\n\f\r\x22<>|.!?(){},\-]";
    let blank = r"[ \t\n\x{A0}\x{2000}-\x{200A}\x{3000}]";
    let starters: Vec<String> = STARTERS
        .split(' ')
        .map(|word| format!("{}(?i:{})", &word[..1], word[1..].replace('.', r"\.")))
        .collect();
    let starters = starters.join("|");
    let joined = "[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}";
    let mut rules = Vec::new();
    let mut rule = |pattern: String, end: End, text: Text| rules.push(Rule { pattern, end, text });

    // Contractions that are two words.
    rule("(?i:cannot)".into(), End::Before(3), Text::Same);
    rule("(?i:gonna|gotta|lemme|gimme|wanna)".into(), End::Before(2), Text::Same);
    rule("'(?i:tis)".into(), End::Before(2), Text::Plain);
    rule("'(?i:twas)".into(), End::Before(3), Text::Plain);
    rule(
        format!("[A-Za-z\u{ad}]*[A-MO-Za-mo-z]\u{ad}*{not}"),
        End::BeforeApostrophe(1),
        Text::Plain,
    );
    rule(format!("{word}{clitic}"), End::BeforeApostrophe(0), Text::Plain);
    rule(format!("{clitic}[^A-Za-z]"), End::Before(1), Text::Plain);
    rule(not, End::Match, Text::Plain);

    // Words.
    rule(word.clone(), End::Match, Text::Plain);
    rule(
        format!(
            "(?i:{APOS}n{APOS}|ol{APOS}|{APOS}em|{APOS}cause|{APOS}till?|[djl]{APOS}|o{APOS}o|c{APOS}mon|cap{APOS}n|ev{APOS}ry|nat{APOS}l|o{APOS}clock|li'l|(?:dunk|someth)in{APOS})"
        ),
        End::Match,
        Text::Same,
    );
    rule(
        format!("[A-HJ-XZn]{APOSTROPHES}{word_letter}{{2}}{word_letter}*"),
        End::Match,
        Text::Same,
    );
    rule(
        format!("{word_letter}+[aeiouyAEIOUY]{APOSTROPHES}[aeiouA-Z]{word_letter}*"),
        End::Match,
        Text::Same,
    );
    rule(format!("{APOS}[nN]"), End::Match, Text::Same);
    rule(format!("[yY]{APOS}{letter}"), End::Before(1), Text::Same);
    rule(format!("{APOS}[0-9]0s"), End::Match, Text::Same);
    rule(format!("{APOS}[0-9][0-9]{blank}"), End::Before(1), Text::Same);
    rule(
        format!(r"(?:{word}|{hyphenated}|{company})\.[,;:\x{{3001}}]"),
        End::Before(1),
        Text::Plain,
    );
    rule(format!(r"{thing}\.[,;:\x{{3001}}]"), End::Before(1), Text::Same);
    // A quotation mark before a word, else a contraction.
    rule(r"'[A-Za-z][^ \t\n\r\x{A0}]".into(), End::Before(2), Text::As("'"));
    rule(clitic, End::Match, Text::Plain);

    // Words with digits, hyphens, strokes.
    rule(thing.clone(), End::Match, Text::Same);
    // Before a hyphen and one letter the abbreviation wins.
    rule(format!(r"(?:{ABBREVIATIONS})\.(?s:..)"), End::Before(2), Text::Same);
    rule(hyphenated.clone(), End::Match, Text::Plain);
    rule(format!(r"{joined}(?:\\?/{joined}){{1,2}}"), End::Match, Text::Same);
    rule(company.into(), End::Match, Text::Plain);
    rule("[A-Za-z]/[A-Za-z]".into(), End::Match, Text::Same);
    rule("(?i:c/o|w/o)".into(), End::Match, Text::Same);

    // Addresses and markup.
    rule(
        r#"</?[A-Za-z][A-Za-z0-9:._-]*(?: +[A-Za-z][A-Za-z0-9:._-]*(?: *= *["'][^\n"']*["'])?)* */?>|<[!?][A-Za-z-][^>\n]*>"#.into(),
        End::Match,
        Text::Spaces,
    );
    rule(format!(r"(?i:https?)://[^ \t\n\f\r\x22<>|(){{}}]+{host_end}"), End::Match, Text::Same);
    rule(
        format!(
            r"(?:www\.(?:[^ \t\n\f\r\x22<>|.!?(){{}},]+\.)+[a-zA-Z]{{2,4}}|(?:[^ \t\n\f\r\x22`'<>|.!?(){{}},-_$]+\.)+(?:com|net|org|edu))(?:/[^ \t\n\f\r\x22<>|()]+{host_end})?"
        ),
        End::Match,
        Text::Same,
    );
    rule(
        r"(?:&lt;|<)?[a-zA-Z0-9][^ \t\n\f\r\x22<>|(){}\x{A0}]*@(?:[^ \t\n\f\r\x22<>|(){}.\x{A0}]+\.)*[^ \t\n\f\r\x22<>|(){}.\x{A0}]+(?:&gt;|>)?".into(),
        End::Match,
        Text::Same,
    );
    rule("@[a-zA-Z_][a-zA-Z_0-9]*".into(), End::Match, Text::Same);
    rule(format!("#{word_letter}+"), End::Match, Text::Same);

    // Numbers and money.
    rule(format!(r"[-+]?{number}"), End::Match, Text::Plain);
    rule(format!("{digit}{{1,2}}[-/]{digit}{{1,2}}[-/]{digit}{{2,4}}"), End::Match, Text::Same);
    rule(
        format!(r"(?:{digit}{{1,4}}[- \x{{A0}}])?{digit}{{1,4}}(?:\\?/|\x{{2044}}){digit}{{1,4}}"),
        End::Match,
        Text::Spaces,
    );
    rule(
        r"(?:\([0-9]{2,3}\)[ \x{A0}]?|(?:\+\+?)?(?:[0-9]{2,4}[- \x{A0}])?[0-9]{2,4}[- \x{A0}])[0-9]{3,4}[- \x{A0}]?[0-9]{3,5}".into(),
        End::Match,
        Text::SpacesAndBrackets,
    );
    rule(r"(?:[A-Z]*\$|#)".into(), End::Match, Text::Same);
    rule("[\u{80}\u{a2}\u{a3}\u{a4}\u{a5}\u{20a0}\u{20ac}]".into(), End::Match, Text::Currency);
    for (sign, written) in [
        ("\u{bc}", "1/4"),
        ("\u{bd}", "1/2"),
        ("\u{be}", "3/4"),
        ("\u{2153}", "1/3"),
        ("\u{2154}", "2/3"),
    ] {
        rule(sign.into(), End::Match, Text::As(written));
    }

    // Abbreviations.
    rule(format!(r"(?:{ABBREVIATIONS}|{TITLES})\."), End::Match, Text::Same);
    rule(r"[A-Za-z]\.".into(), End::Match, Text::Same);
    rule(format!(r"{acronym}\."), End::Match, Text::Same);
    rule(format!(r"[A-Za-z]\.{blank}+(?:{starters}){blank}"), End::Letter, Text::Same);
    rule(format!(r"{BEFORE_NUMBER}\.{blank}[0-9]"), End::Before(2), Text::Same);
    rule(format!(r"{BEFORE_NUMBER}\.[0-9]"), End::Before(1), Text::Same);

    let extensions = "bat|bmp|c|cgi|class|cpp|dll|docx?|exe|gif|gz|h|html?|jar|java|jpe?g|mov|mp3|pdf|php|pl|png|ppt|ps|py|sql|tar|txt|wav|x|xml|zip";
    rule(
        format!(r"{plain}+(?:\.{plain}+)*\.(?i:{extensions})(?:{blank}|[.?!,])"),
        End::Before(1),
        Text::Same,
    );

    // Faces.
    rule(r"[<>]?[:;=][-o*']?[()DPdpO\\{@|\[\]][^A-Za-z0-9]".into(), End::Before(1), Text::Brackets);
    rule(
        r"[-\^x=~<>']_[-\^x=~<>']|\([-\^x=~<>'][_.]?[-\^x=~<>']\)".into(),
        End::Match,
        Text::Brackets,
    );

    // Entities, brackets, quotes and other punctuation.
    for (entity, written) in [
        ("&amp;", "&"),
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&(?:mdash|ndash|MD);", "--"),
        ("[\u{96}\u{97}\u{2013}-\u{2015}]", "--"),
        (r"\(", "-LRB-"),
        (r"\)", "-RRB-"),
        (r"\[", "-LSB-"),
        (r"\]", "-RSB-"),
        (r"\{", "-LCB-"),
        (r"\}", "-RCB-"),
        ("-{3,4}", "--"),
        (r"\.{3,}|\.(?:[ \x{A0}]\.){2,}|[\x{85}\x{2026}]", "..."),
        ("\"|&quot;|''|``", "''"),
        ("'|&apos;|`", "'"),
    ] {
        rule(entity.into(), End::Match, Text::As(written));
    }
    rule("-+".into(), End::Match, Text::Same);
    rule("[.,:;]|[?!]+".into(), End::Match, Text::Same);
    rule(
        "[`\u{91}-\u{94}\u{ab}\u{bb}\u{2018}-\u{201f}\u{2039}\u{203a}]{1,2}".into(),
        End::Match,
        Text::Quotes,
    );
    rule(r"<<|>>|(?:\\\*){1,3}|\*+|#+|@+|_+".into(), End::Match, Text::Same);
    rule("&(?:HT|TL|UR|LR|QC|QL|QR|odq|cdq|#[0-9]+);".into(), End::Match, Text::Same);
    rule("(?i:[CF]#|C\\+\\+)".into(), End::Match, Text::Same);
    rule("&nbsp;".into(), End::Match, Text::Nothing);
    rule(SYMBOL.into(), End::Match, Text::Same);
    rule(r"[ \t\x{A0}\x{2000}-\x{200A}\x{3000}]+".into(), End::Match, Text::Nothing);
    rules
}
