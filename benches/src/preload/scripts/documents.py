"""Documents that are written and parsed as JSON, searched and sorted. The argument says how many."""

import json
import re
import sys


def main(count):
    documents = [
        {
            "id": number,
            "name": f"document {number * 7919 % count}",
            "tags": [f"tag{number % part}" for part in (7, 11, 13)],
            "size": {"width": number % 640 + 0.5, "height": number % 480},
            "parent": None if number % 5 else str(number),
        }
        for number in range(count)
    ]
    text = json.dumps(documents)
    letters = 0
    for _ in range(3):
        parsed = json.loads(text)
        parsed.sort(key=lambda document: document["name"])
        letters += sum(len(document["name"]) for document in parsed)
    numbers = re.findall(r'"name": "document (\d+)"', text)
    print(len(text), letters, sum(map(int, numbers)), parsed == documents)


main(int(sys.argv[1]))
