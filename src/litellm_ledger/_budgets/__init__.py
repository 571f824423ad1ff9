"""Budgets: what calls may cost, in which window, and what is settled and held.

Owns the definition of a budget, its windows, and the balances that calls are admitted by.
Never makes a call, and never says what a finished call cost: the ledger does.
"""
