"""What people look at: how does a line's overview become one HTML page?

Ways in: `collect` (what is on main and on branches, as plain data), `page.render`, `table`, `pages` (where pages are
kept). It only reads, and what it draws decides nothing. Plots are matplotlib's, as inline SVG; see `svg`.

Drawing, compared with the field's libraries: curves and intervals are matplotlib's already; `svg` only gives its
figures the page's colours, equal bytes and no element that a hostile label could become, which plotly and Vega cannot
without scripts, and seaborn leaves to matplotlib. `graph` (three columns of boxes) and `timeline` (lanes of versions)
stay ours: graphviz, pydot and pygraphviz need a native program in both images to lay out what arithmetic places in 60
lines, networkx lays nothing out in layers without them, and none of them knows lanes and arcs of rollbacks.
"""
