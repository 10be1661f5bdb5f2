"""Objects, dictionaries, lists and strings that come and go. The argument says how many."""

import sys


class Account:
    def __init__(self, number, owner):
        self.number = number
        self.owner = owner
        self.history = [number]

    def book(self, amount):
        self.history.append(amount)
        if len(self.history) > 8:
            self.history = self.history[4:]


def main(count):
    state = 12345
    accounts = {}
    for number in range(count):
        accounts[number] = Account(number, f"owner of account {number}")
    for step in range(count * 3):
        state = (state * 1103515245 + 12345) % 2147483648
        number = state % count
        if step % 4 == 0:
            accounts[number] = Account(step, f"owner after step {step}")
        else:
            accounts[number].book(step * 1.5)
    words = " ".join(account.owner for account in accounts.values()).split()
    counts = {}
    for word in words:
        counts[word] = counts.get(word, 0) + 1
    total = sum(sum(account.history) for account in accounts.values())
    print(len(words), len(counts), total)


main(int(sys.argv[1]))
