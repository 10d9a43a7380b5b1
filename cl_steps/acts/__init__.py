"""What a person does after the fact: answer, roll back, withdraw, ask for a new base; each one event on main."""
