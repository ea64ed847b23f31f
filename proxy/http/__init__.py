"""WHAT BYTES MEAN: HTTP as values. Bytes go in, messages come out; nothing here touches a socket or a clock.

Rules of this room:
- What is forwarded is serialised anew from the parsed form; raw input never passes through.
- Ambiguity is an error, never repaired; the rule and its RFC section stand beside each check.
- Names are lower-case bytes, interned; only the few names in headers.KINDS are looked at while parsing.
"""
