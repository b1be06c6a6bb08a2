"""Pieces of which hostile answers are made."""

HOSTILE = [
    '<script>alert(1)</script>', '<img src=x onerror=alert(1)>', '<svg/onload=alert(1)>', '<!--', '-->', '<![CDATA[',
    ']]>', "<style>@import 'http://x'</style>", "<a href='javascript:alert(1)'>x</a>", '<iframe src=//x>',
    '<math><mtext></p>', '[x](javascript:alert(1))', '[x](JaVaScRiPt:alert(1))',
    '[x](data:text/html;base64,PHN2Zz4=)', '[x](vbscript:x)', '[x](<javascript:alert(1)>)',
    '[x](&#106;avascript:alert(1))', '[x](java\\\nscript:alert(1))', '[x](//x.example)',
    '[x](http://a.example/"onmouseover=alert(1))', '[x](http://a.example \'title" onclick="x\')',
    '![i](http://x/y.png)', '![i](javascript:x)', '!["onerror=alert(1)](http://x)', '<http://a.example/<script>>',
    '<javascript:alert(1)>', '[r]: javascript:alert(1)\n', '[r]', '[r][r]', '`', '```\n', '~~~html\n',
    '``` "><script>\n', '> ', '- ', '1. ', '# ', '| a | b |\n|:--|--:|\n', '| <b> | [1] |\n', '\n', '\n\n', '    ',
    '\\', '&lt;script&gt;', '&#x3C;script&#x3E;', '&quot;', '\x00', '\u202e', '[1]', '[1][2]', '[9]', '[1, 3]',
    '[web:0]', '[2-4]', '[1](http://a.example)', '<b>', '</p></div></body>', '\'"><script>', '**', '_', '~~', '***',
    '[', ']', '(', ')', '!', 'https://a.example', 'text', ' ', "a" * 30,
]  # fmt: skip
