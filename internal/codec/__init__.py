"""The only place where pixels are decoded or encoded: pictures, lossless transcoding, comparison by content.

`Codec` gives the work to child processes with limits; the other modules run only there. Below frozen and the ways out,
above dicomfile and scan. Changes when the router needs another thing done to pixels.
"""

from internal.codec.pool import Codec, Limits, Picture, Transcoded
from internal.codec.syntaxes import SYNTAXES, WRITABLE, Syntax, syntax_of

__all__ = ["SYNTAXES", "WRITABLE", "Codec", "Limits", "Picture", "Syntax", "Transcoded", "syntax_of"]
