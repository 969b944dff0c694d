"""Service level objectives: Sloth's specification, its rules byte for byte, and what their alerts are worth.

    group = load.groups(text)[0]                 a Sloth, Kubernetes or OpenSLO document
    rules.compile_group(group, catalogue, ...)   recording and alert rules
    certificate.certify(objective, windows)      when those alerts fire, and what is burnt by then

Not here: who renders what, and when (`assets/slo.py`).
"""
