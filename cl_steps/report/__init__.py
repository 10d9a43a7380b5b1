"""What people look at: how does a line's story become one HTML page?

Ways in: `collect` (what is on main and on branches, as plain data), `page.render`, `table`, `pages` (where pages are
kept). It only reads, and what it draws decides nothing. Plots are matplotlib's, as inline SVG; see `svg`.
"""
