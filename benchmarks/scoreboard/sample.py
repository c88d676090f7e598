def cases(work):
    return []
