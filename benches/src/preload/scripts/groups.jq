[.[] | select(.size.width > 100) | {name, tags: (.tags | join("-")), area: (.size.width * .size.height)}]
| group_by(.tags)
| map({tags: .[0].tags, count: length, names: (map(.name | ascii_upcase) | unique | length), area: (map(.area) | add)})
| sort_by(.area)
